"""The table of a sweep: accuracy by family, and paired differences to its controls."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.errors import DataError
from finedge.train.sweep.choose import chosen_settings, edges
from finedge.train.sweep.file import SweepFile
from finedge.train.sweep.paired import Difference, paired_difference
from finedge.train.sweep.plan import SEED, Group, Setting, SweepRun, groups, settings
from finedge.train.sweep.rows import Kind, Rows

Right = Mapping[str, Mapping[int, NDArray[np.bool_]]]
"""{family: {seed: right answers on test}}."""
ANSWERS: tuple[Kind, Kind] = ("test", "int8")


@dataclass(frozen=True)
class Line:
    """A family in a group.

    Attributes:
        family: its name.
        tried: settings that have a row.
        failed: rows that are errors.
        chosen: what val chose, {key: value}; empty while the search runs.
        edges: keys of `chosen` whose value is the smallest or the largest that was tried.
        parameters: that were trained.
        seeds: that are trained.
        val: mean top-1 on val, 0 to 1, over the seeds.
        tested: seeds that answered on test.
        test: mean top-1 on test over the seeds.
        spread: standard deviation of test top-1 over the seeds; None below two.
        published: top-1 of the paper, 0 to 1.
        control: the family that this one is also compared with, or empty.
        against: {family: the difference to it on test}.
        errors: texts of the rows that failed.
        int8_tested: seeds that answered on test in INT8.
        int8: mean top-1 of these; None where it was not measured.
        int8_spread: standard deviation of `int8` over the seeds; None below two.
        int8_cpu_ms: CPU milliseconds of one INT8 inference of the first seed, in one thread.
        int8_against: {family: the difference to it on test, both in INT8}.
    """

    family: str
    tried: int
    failed: int
    chosen: Mapping[str, Any] = field(default_factory=dict)
    edges: tuple[str, ...] = ()
    parameters: int | None = None
    seeds: int = 0
    val: float | None = None
    tested: int = 0
    test: float | None = None
    spread: float | None = None
    published: float | None = None
    control: str = ""
    against: Mapping[str, Difference] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    int8_tested: int = 0
    int8: float | None = None
    int8_spread: float | None = None
    int8_cpu_ms: float | None = None
    int8_against: Mapping[str, Difference] = field(default_factory=dict)


def tables(file: SweepFile, rows: Rows) -> list[dict[str, Any]]:
    """Return one table for each group, as plain data."""
    return [
        {**vars(group), "lines": [asdict(line) for line in lines(file, group, rows)]}
        for group in groups(file)
    ]


def lines(file: SweepFile, group: Group, rows: Rows) -> list[Line]:
    """Return the lines of a group, in the order of the file."""
    chosen = chosen_settings(file, group, rows)
    right, int8 = (
        {name: _right(file, setting, rows, kind=kind) for name, setting in chosen.items()}
        for kind in ANSWERS
    )
    return [
        _line(file, name, candidates, chosen=chosen.get(name), right=right, int8=int8, rows=rows)
        for name, candidates in settings(file, group).items()
    ]


def _line(
    file: SweepFile,
    name: str,
    candidates: Sequence[Setting],
    *,
    chosen: Setting | None,
    right: Right,
    int8: Right,
    rows: Rows,
) -> Line:
    searched = [row for s in candidates if (row := rows.read(SweepRun(s, SEED))) is not None]
    errors = tuple(row["error"] for row in searched if "error" in row)
    line = Line(name, len(searched), len(errors), errors=errors)
    if chosen is None:
        kept = rows.read_chosen(candidates[0].group).get(name)
        lost = (f"the setting {kept}, with which test was read, is not in the file",)
        return replace(line, errors=(*(lost if kept else ()), *errors))
    runs = rows.finished_runs(chosen, seeds=file.seeds)
    trained = [row for run in runs if (row := rows.read(run)) is not None]
    val = [row["val"]["top1"] for row in trained if row["val"]["n"]]
    published = file.families[name].published.get(chosen.group.data)
    return Line(
        family=name,
        tried=len(searched),
        failed=len(errors),
        chosen=chosen.point,
        edges=edges([row["point"] for row in searched], chosen.point),
        parameters=trained[0]["parameters"],
        seeds=len(trained),
        val=statistics.mean(val) if val else None,
        tested=len(right[name]),
        test=_mean(right[name]),
        spread=_spread(right[name]),
        published=None if published is None else published / 100,
        control=file.families[name].control,
        against=_differences(file, name, right),
        errors=errors,
        int8_tested=len(int8[name]),
        int8=_mean(int8[name]),
        int8_spread=_spread(int8[name]),
        int8_cpu_ms=rows.read_times(chosen.group).get(SweepRun(chosen, SEED).path.name),
        int8_against=_differences(file, name, int8),
    )


def _right(
    file: SweepFile, setting: Setting, rows: Rows, *, kind: Kind
) -> dict[int, NDArray[np.bool_]]:
    """Return {seed: right answers on test}."""
    runs = rows.finished_runs(setting, seeds=file.seeds)
    read = {run.seed: rows.right(run, kind) for run in runs}
    return {seed: answers for seed, answers in read.items() if answers is not None}


def _mean(right: Mapping[int, NDArray[np.bool_]]) -> float | None:
    return statistics.mean(_top1(right)) if right else None


def _spread(right: Mapping[int, NDArray[np.bool_]]) -> float | None:
    return statistics.stdev(_top1(right)) if len(right) > 1 else None


def _top1(right: Mapping[int, NDArray[np.bool_]]) -> list[float]:
    return [float(answers.mean()) for answers in right.values()]


def _differences(file: SweepFile, name: str, right: Right) -> dict[str, Difference]:
    """Return {other family: the difference to it}, over the seeds that both have."""
    control = file.families[name].control
    others = dict.fromkeys((*file.compare, *((control,) if control else ())))
    result: dict[str, Difference] = {}
    for other in others:
        seeds = sorted(right[name].keys() & right.get(other, {}).keys())
        if other != name and seeds:
            _require_same_images(name, other, right)
            first, second = (np.stack([right[f][s] for s in seeds]) for f in (name, other))
            result[other] = paired_difference(first, second)
    return result


def _require_same_images(first: str, second: str, right: Right) -> None:
    sizes = {len(answers) for name in (first, second) for answers in right[name].values()}
    if len(sizes) > 1:
        raise DataError(
            f"test rows of '{first}' and '{second}' have {', '.join(map(str, sorted(sizes)))} "
            "images: the data set changed between them",
            expected="the same images for all rows",
            fix="a new --out, or delete test and int8 in it and run --test and --int8 again",
        )
