"""Bundles of `export --frame HxW`: their graph takes whole frames, and resizes and crops them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import onnx

from finedge.errors import UsageError
from finedge.export.passes.frame import accept_frames
from finedge.spec import Input, Preprocess, Spec


def frame_size(text: str) -> tuple[int, int]:
    """Read HxW, e.g. 720x1280, as (height, width) in pixels."""
    size = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if size is None:
        raise UsageError(f"frame '{text}'", expected="HEIGHTxWIDTH in pixels, e.g. 720x1280")
    return int(size[1]), int(size[2])


def framed_spec(spec: Spec, size: tuple[int, int]) -> Spec:
    """Return the spec of a graph that takes frames of `size` (height, width)."""
    return replace(spec, preprocess=replace(spec.preprocess, frame=size), input=Input(*size))


def framed_files(
    files: Mapping[str, onnx.ModelProto], preprocess: Preprocess
) -> dict[str, onnx.ModelProto]:
    """Return the files with the resize and crop of `preprocess` as their first nodes.

    They are returned as they are where `preprocess` has no frame size.
    """
    if preprocess.frame is None:
        return dict(files)
    height, width = preprocess.frame
    return {
        name: accept_frames(model, preprocess, height=height, width=width)
        for name, model in files.items()
    }
