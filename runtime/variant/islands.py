"""What stays in float in an INT8 variant, in words: it explains why INT8 gains little."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from finedge.bundle import Bundle
from finedge.document import read_json
from finedge.errors import FinedgeError
from finedge.runtime.backend import SessionInfo

MAX_GROUPS = 2  # reasons, or kinds of layers of an engine
MAX_NAMES = 2  # nodes of a group


def float_islands(bundle: Bundle, info: SessionInfo) -> str:
    """Return what an INT8 session computes in float, or "" where nothing is known.

    Of an engine it is the layer list that its build recorded. Of a file it is the record of
    `finedge calibrate`.
    """
    if info.path is not None:
        return _text(_of_engine(info.path))
    placement = bundle.calibration.placements.get(info.file)
    return "" if placement is None else _text(placement.stays_float.items())


def _of_engine(path: Path) -> list[tuple[str, str]]:
    """Return the name of each layer that computes in float, and what it is."""
    from finedge.runtime.trt.build.layers import LayerReport

    try:
        record = read_json(path.with_suffix(".json"), error=FinedgeError, fix="finedge build")
        islands = LayerReport.from_json(record).float_islands()
    except (FinedgeError, OSError, ValueError, KeyError, TypeError):
        return []  # an explanation only: an older record may lack the layers
    return [
        (", ".join(layer.onnx) or layer.name, f"{layer.role} in {layer.precision}")
        for layer in islands
    ]


def _text(islands: Iterable[tuple[str, str]]) -> str:
    """Return a sentence about nodes (name, reason), by reason, the most frequent first."""
    groups: dict[str, list[str]] = {}
    for name, reason in islands:
        groups.setdefault(reason, []).append(name)
    if not groups:
        return ""
    return f"{sum(map(len, groups.values()))} nodes stay in float: {_named(groups)}"


def _named(groups: Mapping[str, list[str]]) -> str:
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))[:MAX_GROUPS]
    return "; ".join(
        f"{len(names)} ({', '.join(names[:MAX_NAMES])}{', ...' if len(names) > MAX_NAMES else ''}):"
        f" {reason}"
        for reason, names in largest
    )
