"""What `finedge data list`, `data get` and `data check` show on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType

from finedge.tables import fields, one_line, stack, styled, table

Rows = Iterator[tuple[object, ...]]


def show_datasets(result: dict[str, Any]) -> RenderableType:
    """Return the published data sets with their sizes, terms and notes."""
    sets = result["datasets"]
    columns = ("name", "title", ">classes", ">images", "download")
    rows = [
        (
            styled(entry["name"], "bold"),
            entry["title"],
            entry["counts"].get("classes"),
            _images(entry["counts"]),
            "yes" if entry["download"] else "by hand",
        )
        for entry in sets
    ]
    notes = [(entry["name"], _note(entry)) for entry in sets]
    return stack(table(columns, rows), fields(notes, title="terms of use, notes and options"))


def show_get(result: dict[str, Any]) -> RenderableType:
    """Return what a data set brought, and the next command."""
    pairs = [
        ("data set", result["title"]),
        ("folder", result["out"]),
        ("images", _counts(result["counts"])),
        ("options", _counts(result["options"])),
        ("terms", result["terms"]),
        ("homepage", result["homepage"]),
    ]
    return Group(
        fields(pairs), one_line(f"next: finedge train --data {result['out']} --out RUN", "dim")
    )


def show_check(result: dict[str, Any]) -> RenderableType:
    """Return the verdict, the balance of the splits, and the files to look at."""
    passed = result["pass"]
    verdict = styled("passed" if passed else "FAILED", "bold green" if passed else "bold red")
    columns = ("split", ">images", ">min", ">median", ">max", "classes without an image")
    balance = [
        (name, b["images"], b["min"], f"{b['median']:g}", b["max"], ", ".join(b["empty"]) or "none")
        for name, b in result["balance"].items()
    ]
    pairs: list[tuple[str, object]] = [
        ("check", verdict),
        ("data", result["data"]),
        ("images", f"{result['images']} in {result['classes']} classes"),
        *_findings(result),
    ]
    listed = list(_listed(result))
    files = [table(("finding", "file", "split", "label"), listed)] if listed else []
    return stack(fields(pairs), table(columns, balance, title="images a class"), *files)


def _findings(result: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    exact, near, sizes = result["exact"], result["near"], result["sizes"]
    yield "unreadable", result["unreadable"]["n"]
    yield (
        "exact duplicates",
        f"{exact['groups']} groups: {exact['across_splits']} across splits, "
        f"{exact['different_label']} under two labels",
    )
    if "why_not" in near:
        yield "near duplicates", f"not compared: {near['why_not']}"
    else:
        across, within = (sum(near[name].values()) for name in ("across_splits", "within_split"))
        pairs = f"{across} pairs across splits, {within} within one"
        yield "near duplicates", f"{pairs} (at most {near['threshold']} of 64 bits differ)"
    if sizes:
        short, tiny = sizes["short"], sizes["tiny"]
        yield (
            "short side",
            f"{short['min']} to {short['max']} pixels, median {short['median']:g}; "
            f"{tiny['n']} under {tiny['under']}",
        )


def _listed(result: Mapping[str, Any]) -> Rows:
    """Yield a row for each listed file: of a group or a pair, the rows follow each other."""
    for entry in result["unreadable"]["list"]:
        yield f"unreadable: {entry['why']}", *_place(entry)
    for group in result["exact"]["list"]:
        for entry in group:
            yield "exact" if entry is group[0] else "  the same", *_place(entry)
    for pair in result["near"].get("list", ()):
        yield f"near, {pair['distance']} bits", *_place(pair["a"])
        yield "  like", *_place(pair["b"])
    for entry in result["sizes"].get("tiny", {}).get("list", ()):
        yield "tiny", *_place(entry)


def _place(entry: Mapping[str, str]) -> tuple[str, str, str]:
    return entry["path"], entry["split"], entry["label"]


def _images(counts: Mapping[str, int]) -> int | None:
    return sum(n for name, n in counts.items() if name in ("train", "val", "test")) or None


def _note(entry: Mapping[str, Any]) -> str:
    options = [f"{name}={'|'.join(map(str, v))}" for name, v in entry["options"].items()]
    return "; ".join([entry["terms"], *filter(None, [entry["note"]]), *options])


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in counts.items()) or "none"
