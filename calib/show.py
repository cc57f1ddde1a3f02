"""What `finedge calibrate` shows on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from finedge.calib.search.table import show_search
from finedge.tables import fields, interval, megabytes, percent, stack, styled, table

METHOD_COLUMNS = ("method", ">calibrated with", ">KL", ">same top-1", ">top-1", ">of images")


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
        *_decision(result["decision"]),
        *([show_search(result["search"])] if "search" in result else []),
        *_accuracy(result.get("accuracy", {})),
        _confidence(result["confidence"]),
        *_exits(result.get("exits", {})),
        *_groups(result.get("label_tree", {})),
        *_seconds(result.get("seconds", {})),
    )


def _seconds(steps: Mapping[str, Mapping[str, float]]) -> list[RenderableType]:
    """Return the time of the whole, and of the steps that took a tenth of it or more."""
    whole = sum(step["wall"] for step in steps.values())
    long = {name: s["wall"] for name, s in steps.items() if s["wall"] >= whole / 10}
    text = f"{whole:.0f} s: " + ", ".join(f"{name} {s:.0f} s" for name, s in long.items())
    return [fields([("took", text)])] if steps else []


def _decision(decision: Mapping[str, Any]) -> list[RenderableType]:
    """Return what was compared on the decision set, and the reason; nothing without it."""
    parts: list[RenderableType] = []
    if decision["reason"]:
        parts.append(fields([("method", decision["reason"])]))
    titles = {
        "methods": "calibration methods against float, on other training images",
        "curve": "the method by number of calibration images",
        "attention": "attention with its softmax weights in float (scores), and in INT8",
    }
    for key, title in titles.items():
        if rows := [_method(row) for row in decision[key]]:
            parts.append(table(METHOD_COLUMNS, rows, title=title))
    return parts


def _method(row: Mapping[str, Any]) -> tuple[object, ...]:
    shares = (percent(row[key]) for key in ("agreement", "top1"))
    return row["method"], row["images"], f"{row['kl']:.5f}", *shares, row["n"]


def _accuracy(records: Mapping[str, Mapping[str, Any]]) -> list[RenderableType]:
    """Return what each variant costs on validation images, compared with fp32."""
    rows = [
        (
            variant,
            percent(cost["top1"]),
            f"{100 * cost['top1_change']:+.1f} points",
            f"{cost['mcnemar_p']:.2g}",
            f"{cost['flips']} of {cost['n']}",
        )
        for variant, cost in records.items()
    ]
    columns = ("variant", ">top-1", ">against fp32", ">McNemar p", ">answers changed")
    return [table(columns, rows, title="accuracy on validation images")] if rows else []


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


def _groups(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[RenderableType]:
    """Return from where on groups of classes are named, and how often that is right."""
    rows = [
        (
            variant,
            one["depth"],
            "never" if one["threshold"] is None else percent(one["threshold"]),
            f"{one['named']} of {one['asked']}",
            one["right"] if one["named"] else None,
            interval(one["wilson95"]) if one["named"] else None,
            f"{one['unknown_right']} of {one['unknown_named']}",
        )
        for variant, depths in records.items()
        for one in depths
    ]
    columns = (
        "variant",
        ">depth",
        ">named from",
        ">images named",
        ">right",
        ">95 %",
        ">of unknown",
    )
    title = "groups of the label tree, fitted on validation images"
    return [table(columns, rows, title=title)] if rows else []


def _exits(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[RenderableType]:
    """Return how many validation images leave at each exit, and what that may cost."""
    rows = [
        (
            variant,
            one["output"],
            "never" if one["threshold"] is None else percent(one["threshold"]),
            percent(one["share"]),
            f"{one['lost']} of {one['n']}",
            percent(one["lost_upper95"]),
        )
        for variant, exits in records.items()
        for one in exits
    ]
    columns = (
        "variant",
        "exit",
        ">leaves from",
        ">leave",
        ">right answers lost",
        ">at most (95 %)",
    )
    return [table(columns, rows, title="early exits, fitted on validation images")] if rows else []
