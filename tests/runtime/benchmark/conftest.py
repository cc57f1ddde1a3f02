"""A benchmark called with the names of its options, as the command line does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from finedge.runtime.benchmark.command import benchmark
from finedge.runtime.benchmark.options import Claims, FrameOptions, MeasurementOptions
from finedge.runtime.evaluate.labelled import SplitOptions
from finedge.runtime.find.options import FindOptions
from finedge.runtime.look_twice.options import LookOptions

GROUPS = {
    "run": MeasurementOptions,
    "dataset": SplitOptions,
    "frames": FrameOptions,
    "finding": FindOptions,
    "look": LookOptions,
    "claims": Claims,
}


def run_benchmark(
    bundles: Sequence[Path], *, out: Path | None = None, **options: Any
) -> dict[str, Any]:
    """Benchmark bundles; `options` are fields of the option groups."""
    groups: dict[str, Any] = {}
    for name, group in GROUPS.items():
        own = {field.name for field in fields(group)} & options.keys()
        groups[name] = group(**{option: options.pop(option) for option in own})
    assert not options
    return benchmark(tuple(bundles), out=out, **groups)
