"""What `finedge train` and `finedge models` show on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding

from finedge.tables import UNKNOWN, fields, interval, one_line, percent, stack, styled, table


def show_train(result: dict[str, Any]) -> RenderableType:
    """Return the summary of a run, or of several with their mean, and the next command."""
    return _seeds(result) if "runs" in result else _run(result)


def _run(run: Mapping[str, Any]) -> RenderableType:
    pairs = [
        ("run", run["run"]),
        ("model", f"{run['model']} on {run['backbone']}"),
        ("epochs", run["epochs"]),
        ("top-1", f"{_top1(run)} of {run['n']} {run['split']} images"),
        ("top-5", percent(run["top5"])),
        ("loss", f"{run['loss']:.4f}"),
        ("speed", f"{run['images_per_s']:.1f} images/s"),
        ("time", duration(run["seconds"])),
    ]
    if "profile" in run:
        phases = [f"{name} {value}" for name, value in run["profile"].items()]
        pairs.append(("profile", ", ".join(phases)))
    if "page" in run:
        pairs.append(("page", run["page"]))
    following = f"next: finedge export {run['run']} --out BUNDLE"
    return Group(fields(pairs), one_line(following, "dim"))


def _seeds(result: Mapping[str, Any]) -> RenderableType:
    columns = ("run", ">epochs", ">top-1 (95 %)", ">top-5", ">loss", ">time")
    rows = [
        (
            run["run"],
            run["epochs"],
            _top1(run),
            percent(run["top5"]),
            f"{run['loss']:.4f}",
            duration(run["seconds"]),
        )
        for run in result["runs"]
    ]
    spread = result["top1"]
    low, high = percent(spread["min"]), percent(spread["max"])
    mean = f"top-1 of {spread['n']} runs: mean {percent(spread['mean'])}, {low} to {high}"
    return stack(table(columns, rows), styled(mean, "bold"))


def show_models(result: dict[str, Any]) -> RenderableType:
    """Return the models with what is known of them, their costs, the backbones and the recipes."""
    abouts = [part for model in result["models"] for part in _about(model)]
    sizes = list(result["costs"][0]["gmac"]) if result["costs"] else []
    costs = [
        (
            row["model"],
            row["backbone"],
            f"{row['parameters'] / 1e6:.2f} M",
            *(f"{row['gmac'][size]:.2f}" for size in sizes),
        )
        for row in result["costs"]
    ]
    columns = ("model", "backbone", ">parameters", *(f">GMAC {size}" for size in sizes))
    title = f"costs, {result['classes']} classes"
    pairs = [
        ("backbones", ", ".join(backbone["name"] for backbone in result["backbones"])),
        ("recipes", ", ".join(result["recipes"])),
    ]
    return stack(Group(*abouts), table(columns, costs, title=title), fields(pairs))


def _about(model: Mapping[str, Any]) -> list[RenderableType]:
    texts = [styled(f"{key}: {model[key]}") for key in ("certain", "reconstructed")]
    head = styled(model["name"], "bold") + styled(f": {model['paper']}")
    return [head, *(Padding(text, (0, 0, 0, 4)) for text in texts)]


def _top1(run: Mapping[str, Any]) -> str:
    if run["top1"] is None:
        return UNKNOWN
    return f"{percent(run['top1'])} ({interval(run['wilson95'])})"


def duration(seconds: float) -> str:
    """Return a time as `12.3 s`, `5 min 12 s` or `3 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left:02} min" if hours else f"{minutes} min {rest:02} s"
