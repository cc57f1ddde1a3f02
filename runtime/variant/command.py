"""`finedge choose`: which variant `--variant auto` runs on this machine, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tyro.conf import Positional

from finedge.bundle import Bundle
from finedge.errors import FinedgeError


def choose(
    bundle: Positional[Path],
    *,
    backend: str = "auto",
    threads: int | None = None,
    again: bool = False,
    in_bundle: bool = False,
    require_faster: bool = False,
) -> dict[str, Any]:
    """Time the variants of a bundle on this machine, and say which one `auto` runs.

    INT8 runs where it is faster end to end beyond noise, and its drop in accuracy is not beyond
    chance. The result is remembered: `finedge classify` does not time them again.

        finedge choose birds.finedge

    Args:
        bundle: the bundle's folder.
        backend: a backend's name; auto is the first that runs on this machine.
        threads: CPU threads; default: the physical cores that this process may use.
        again: time them also where a choice is remembered.
        in_bundle: write the choice into the bundle's folder too (auto.json), for other accounts of
            this machine.
        require_faster: exit 1 where INT8 is not faster beyond noise.
    """
    from finedge.runtime.backend import SessionOptions, get_backend
    from finedge.runtime.classifier import Classifier
    from finedge.runtime.variant.choose import Request
    from finedge.runtime.variant.memory import SIDECAR, write_choice

    loaded = Bundle.load(bundle)
    options = SessionOptions(threads)
    opener, any_backend = get_backend(backend, options=options), backend == "auto"
    request = Request(opener, loaded, options, again=again, any_backend=any_backend)
    choice = Classifier.choose_variant(request)
    if in_bundle and choice.basis != "unchecked":
        write_choice(loaded.path / SIDECAR, request.key, choice=choice)
    name = choice.other_backend or opener.name
    result = {"bundle": loaded.name, "backend": name, **choice.to_json()}
    verdict = choice.verdict("int8")
    if require_faster and (verdict is None or not verdict.is_faster):
        reason = choice.reason if verdict is None else verdict.reason
        raise FinedgeError(
            f"INT8 is not faster on this machine: {reason}",
            expected="INT8 faster than the float variants beyond noise",
            fix="finedge benchmark BUNDLE measures for longer",
            result=result,
        )
    return result
