"""`finedge export`: a run becomes a bundle, once ONNX Runtime and PyTorch agree on real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tyro.conf import Positional


def export(
    run: Positional[Path],
    *,
    out: Path,
    data: Path | None = None,
    frame: str | None = None,
    segments: bool = False,
    exits: str = "",
) -> dict[str, Any]:
    """Make a bundle of a run: ONNX files in standard ops, each compared with PyTorch.

    The comparison takes 8 validation images.

    Examples:
        >>> export(Path("runs/birds"), out=Path("birds.finedge"))["parity"]["max_abs"] < 1e-4
        True

    Args:
        run: the folder that `finedge train` wrote.
        out: the bundle to write, e.g. birds.finedge; an existing bundle is replaced.
        data: the images for the comparison; default: the data recorded in the run.
        frame: HEIGHTxWIDTH, e.g. 720x1280: the graph takes whole frames of that size, and resizes
            and crops them itself.
        segments: also write the graph in segments, cut after local heads, for --early-exit.
        exits: the local outputs to cut at, in a comma list; default: all that save 2 % of the
            multiply-accumulates or more.
    """
    from finedge.export.make import make_bundle

    return make_bundle(run, out=out, data=data, frame=frame, segments=segments, exits=exits)
