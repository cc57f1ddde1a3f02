"""`finedge doctor`: what this machine can run, and how to fix the rest."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from finedge import terminal
from finedge.errors import SystemProblem
from finedge.jetson.doctor.checks import find_problems
from finedge.jetson.doctor.facts import examine
from finedge.jetson.doctor.show import show
from finedge.runtime.backend import FAKES

SCHEMA = 1


def doctor(*, root: Path = Path("/")) -> dict[str, Any]:
    """Say what this machine can run, and what to do about the rest.

    A terminal gets a table. In a pipe stdout gets one JSON object and stderr the table; with --json
    there is no table. Exits 3 when no backend can run, else 0.

    Args:
        root: where /proc, /sys, /dev and /etc are looked for.
    """
    facts = examine(root)
    problems = [asdict(problem) for problem in find_problems(facts)]
    result = {"schema": SCHEMA, **facts, "problems": problems}
    if not (terminal.for_people() or terminal.json_requested()):
        terminal.console(stderr=True).print(show(result), crop=False)
    backends = {name: why_not for name, why_not in facts["backends"].items() if name not in FAKES}
    if all(why_not is not None for why_not in backends.values()):
        raise SystemProblem(
            "no backend can run here",
            expected="at least onnxruntime",
            fix=facts["backends"]["onnxruntime"],
            result=result,
        )
    return result
