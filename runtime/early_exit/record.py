"""How many frames left at each exit, and how many of them rightly."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.early_exit import ExitRule
from finedge.runtime.backend import Session
from finedge.runtime.early_exit.session import EarlyExitSession

log = logging.getLogger(__name__)

END = "end"  # of the model: no exit was sure


def exit_record(
    exits: Sequence[ExitRule], taken: NDArray[np.intp], right: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return the record of labelled frames.

    Args:
        exits: the rules, in running order.
        taken: where each frame left, int [n]; `len(exits)` is the end of the model.
        right: whether its answer is true, bool [n].

    Returns:
        {"share": frames that left early, "exits": [{"output", "threshold", "n", "share", "top1"}]};
        the last entry is the end of the model. `top1` is None where no frame left.
    """
    names: list[tuple[str, float | None]] = [(rule.output, rule.threshold) for rule in exits]
    rows = [
        _row(name, threshold, taken == index, right)
        for index, (name, threshold) in enumerate([*names, (END, None)])
    ]
    return {"share": round(float((taken < len(exits)).mean()), 6), "exits": rows}


def shares(exits: Sequence[ExitRule], counts: NDArray[np.intp]) -> dict[str, float]:
    """Return the share of frames that left at each exit and at the end, of counts [exits + 1]."""
    names = [*(rule.output for rule in exits), END]
    total = max(1, int(counts.sum()))  # camera mode counts none
    return {name: round(int(count) / total, 6) for name, count in zip(names, counts, strict=True)}


def exits_text(record: Mapping[str, Any]) -> str:
    """Return where the images of an `exit_record` left, and how many of them rightly.

    >>> exit = {"output": "local_1", "share": 0.476, "top1": 0.963}
    >>> exits_text({"exits": [exit, {"output": "end", "share": 0.524, "top1": 0.659}]})
    '47.6 % left at local_1 (96.3 % right), 52.4 % at end (65.9 % right)'
    """
    texts = [
        f"{one['share']:.1%} at {one['output']}"
        + ("" if one["top1"] is None else f" ({one['top1']:.1%} right)")
        for one in record["exits"]
    ]
    return ", ".join(texts).replace("%", " %").replace(" at", " left at", 1)


def titled(bundle: str, early_exit: object) -> str:
    """Return the name of a bundle, and whether it runs with early exits.

    >>> titled("birds", early_exit=True)
    'birds with early exits'
    """
    return f"{bundle} with early exits" if early_exit else bundle


def log_exits(session: Session) -> None:
    """Log the share of frames that left at each exit of a session, if it has exits."""
    if isinstance(session, EarlyExitSession) and session.counts.any():
        named = shares(session.exits, session.counts).items()
        texts = (f"{share:.1%} at {name}" for name, share in named)
        log.info("early exit: %s", ", ".join(texts))


def _row(
    output: str, threshold: float | None, left: NDArray[np.bool_], right: NDArray[np.bool_]
) -> dict[str, Any]:
    n = int(left.sum())
    return {
        "output": output,
        "threshold": threshold,
        "n": n,
        "share": round(n / len(left), 6),
        "top1": round(float(right[left].mean()), 6) if n else None,
    }
