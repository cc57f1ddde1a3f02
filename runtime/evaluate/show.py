"""What `finedge evaluate` shows on a terminal, of a bundle or a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType

from finedge.data.doubts import doubts
from finedge.tables import fields, interval, percent, stack, styled, table

WORST = 10  # classes listed
WORST_PAIRS = 5  # pairs of classes listed


def show(result: dict[str, Any]) -> RenderableType:
    """Return the accuracy with its 95 % interval, then robustness and the worst classes."""
    clean = result.get("clean", result)
    pairs = [
        ("top-1", _top1(clean)),
        ("top-5", percent(clean["top5"])),
        ("images", f"{clean['n']} of the {result['split']} split"),
    ]
    if "variant" in result:
        file = f"{result['file']} on {result['backend']} ({result['precision']})"
        pairs.append(("variant", f"{result['variant']}: {file}"))
    if "look_twice" in result:
        look = result["look_twice"]
        pairs.append(("looks", f"2, the second at {percent(look['crop'])} of the crop's side"))
    if "page" in result:
        pairs.append(("page", result["page"]))
    parts: list[RenderableType] = [Group(fields(pairs), *_warnings(result["data"]))]
    if "early_exit" in result:
        parts.append(_exits(result["early_exit"]))
    if "robustness" in result:
        parts.append(_robustness(result["robustness"]))
    if "classes" in result:
        parts.append(_worst(result["classes"]))
    if result.get("worst_pairs"):
        parts.append(_pairs(result["worst_pairs"]))
    return stack(*parts)


def _warnings(data: Mapping[str, Any]) -> list[RenderableType]:
    return [styled(text, "yellow") for text in doubts(data)]


def _exits(record: Mapping[str, Any]) -> RenderableType:
    rows = [
        (
            one["output"],
            "-" if one["threshold"] is None else percent(one["threshold"]),
            percent(one["share"]),
            one["n"],
            "-" if one["top1"] is None else percent(one["top1"]),
        )
        for one in record["exits"]
    ]
    columns = ("leaves at", ">from", ">share", ">images", ">top-1 of these")
    title = f"early exit: {percent(record['share'])} leave before the end"
    return table(columns, rows, title=title)


def _robustness(records: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    rows = [
        (name, _top1(record), f"{0.0 - 100 * record['drop']:+.1f}")
        for name, record in records.items()
    ]
    columns = ("the same images after", ">top-1 (95 %)", ">change in points")
    return table(columns, rows)


def _worst(classes: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Return the classes with the lowest accuracy; those without an image are left out."""
    measured = [(label, record) for label, record in classes.items() if record["n"]]
    measured.sort(key=lambda entry: (entry[1]["top1"], entry[0]))
    rows = [(label, percent(record["top1"]), record["n"]) for label, record in measured[:WORST]]
    title = f"the {len(rows)} worst of {len(measured)} classes"
    return table(("class", ">top-1", ">images"), rows, title=title)


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> RenderableType:
    rows = [
        (pair["class"], pair["taken_for"], f"{pair['images']} of {pair['of']}")
        for pair in pairs[:WORST_PAIRS]
    ]
    return table(("class", "taken for", ">images"), rows, title="the worst pairs")


def _top1(record: Mapping[str, Any]) -> str:
    return f"{percent(record['top1'])} ({interval(record['wilson95'])})"
