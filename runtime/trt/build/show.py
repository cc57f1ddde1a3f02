"""What `finedge build` shows on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from finedge.tables import fields, megabytes, one_line, stack, styled, table

Pairs = Iterator[tuple[str, object]]


def show(result: dict[str, Any]) -> RenderableType:
    """Return each precision with its engine, or with what would be built; failures are marked."""
    head = f"{result['backend']} {result['version']}: {result['bundle']}"
    show_one = _plan if result["dry_run"] else _engine
    precisions = [
        Group(*_precision(name, record, fields(show_one(record))))
        for name, record in result["precisions"].items()
    ]
    return stack(one_line(head, "bold"), *precisions)


def _precision(
    name: str, record: Mapping[str, Any], content: RenderableType
) -> Iterator[RenderableType]:
    failed = record.get("failed")
    state = styled(": FAILED", "bold red") if failed else styled(f" of {record['file']}")
    yield styled(name, "bold") + state
    if failed:
        yield styled(failed)
    else:
        yield content
    if record.get("unsupported"):
        columns = ("node", "op", "why", "to do")
        nodes = [
            (node["name"], node["op"], node["why"], node["fix"]) for node in record["unsupported"]
        ]
        yield table(columns, nodes)


def _engine(record: Mapping[str, Any]) -> Pairs:
    if "engine" not in record:
        return
    summary, attention = record["summary"], record["attention"]
    yield "engine", record["engine"]
    yield "built", f"in {record['seconds']:.0f} s, {megabytes(record['bytes'])}"
    yield "typing", record["typing"]
    yield "attention", f"{attention['chosen']}: {attention['why']}"
    for mode, error in attention["failed"].items():
        yield f"{mode} failed", styled(error, "bold red")
    yield "layers", f"{summary['layers']} ({summary['source']})"
    for role, counts in summary["precisions"].items():
        yield role, ", ".join(f"{count} {precision}" for precision, count in counts.items())
    yield "float islands", len(summary["float_islands"])
    for kind, count in summary.get("unknown_kinds", {}).items():
        yield "unknown type", f"{count} layers of type '{kind}': their precision is not checked"
    for problem in record["problems"]:
        yield "problem", styled(problem, "bold red")
    for part in record.get("segments", ()):
        yield part["file"], f"{part['engine']}, {megabytes(part['bytes'])}"
        for problem in part["problems"]:
            yield "problem", styled(problem, "bold red")


def _plan(record: Mapping[str, Any]) -> Pairs:
    if "keys" not in record:
        return
    memory = record["memory"]
    yield "target", record["target"]
    yield "memory", f"{memory['host_mib']} MiB of the host, {memory['device_mib']} MiB of the GPU"
    for choice in record["attention"]:
        yield "attention", f"{choice['mode']}: {choice['why']}"
    for key in record["keys"]:
        yield "engine", _planned(key)
    for part in record.get("segments", ()):
        for key in part["keys"]:
            yield part["file"], _planned(key)


def _planned(key: Mapping[str, Any]) -> str:
    return f"{Path(key['digest']).name[:16]} ({'stored' if key['stored'] else 'new'})"
