"""What `finedge calibrate` shows on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from finedge.calib.search.table import show_search
from finedge.tables import fields, megabytes, percent, stack, styled, table


def show(result: dict[str, Any]) -> RenderableType:
    """Return the INT8 files with their layers, and how sure each variant may be."""
    layers = result["int8_layers"], result["float_layers"]
    files = [
        (name, megabytes(size), *(counts[name] for counts in layers))
        for name, size in result["files"].items()
    ]
    images = f"{result['images']} images of the training split, method {result['method']}"
    return stack(
        fields([("calibrated with", images)]),
        table(("file", ">size", ">INT8 layers", ">float layers"), files),
        *([show_search(result["search"])] if "search" in result else []),
        _confidence(result["confidence"]),
    )


def _confidence(records: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    if not records:
        return styled("no confidence was fitted: too few validation images", "yellow")
    rows = [
        (
            variant,
            f"{record['temperature']:.3f}",
            percent(record["reject"]),
            percent(record["coverage"]),
            percent(record["accuracy_accepted"]),
            f"{record['ece_before']:.3f} -> {record['ece_after']:.3f}",
        )
        for variant, record in records.items()
    ]
    columns = (
        "variant",
        ">temperature",
        ">unknown below",
        ">coverage",
        ">top-1 of these",
        ">calibration error",
    )
    return table(columns, rows, title="confidence, fitted on validation images")
