"""`finedge doctor`: what this machine can run, and how to mend the rest."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finedge.errors import SystemProblem
from finedge.jetson.doctor.checks import find_problems
from finedge.jetson.doctor.facts import examine
from finedge.jetson.doctor.show import show

SCHEMA = 1
PRETENDERS = {"fake"}  # answers without computing, so that it can run says nothing


def doctor(*, json: bool = False, root: Path = Path("/")) -> dict[str, Any] | None:
    """Say what this machine can run, and what to do about the rest.

    People get a table on stderr. Programs get one JSON object on stdout: with --json (then no table), and whenever stdout is not
    a terminal. So what is on stdout is always JSON, and a person is not shown a page of it. Exits 3 when no backend can run, else 0.

    Args:
        json: JSON only, also on a terminal.
        root: where /proc, /sys, /dev and /etc are looked for.
    """
    facts = examine(root)
    problems = find_problems(facts)
    if not json:
        show(facts, problems)
    result = (
        {"schema": SCHEMA, **facts, "problems": [asdict(p) for p in problems]}
        if json or not sys.stdout.isatty()
        else None
    )
    if all(why is not None for name, why in facts["backends"].items() if name not in PRETENDERS):
        raise SystemProblem(
            "no backend can run here",
            expected="at least onnxruntime",
            fix=facts["backends"]["onnxruntime"],
            result=result,
        )
    return result
