"""The segments of the INT8 files: the quantized graph is cut, so scales and integers are the same.

Segments and whole compute the same numbers, bit for bit. That is checked for each file on 8 of the
calibration images, with exact products.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import onnx

from finedge.bundle import Bundle
from finedge.calib.ranges.calibration_set import CalibrationSet
from finedge.early_exit import segment_file
from finedge.export.segments import check_cut, segments_of
from finedge.graph.inlining import inline

CHECKED_IMAGES = 8


def int8_segments(
    files: Mapping[str, bytes], sample: CalibrationSet, bundle: Bundle
) -> dict[str, bytes]:
    """Return the segments of INT8 files by name; none where the bundle's models are not cut.

    Args:
        files: the INT8 files by name.
        sample: the calibration images.
        bundle: says where its models are cut.

    Raises:
        GateError: a segment computes another number than the whole.
    """
    plan = bundle.export.segments
    if not plan.exits:
        return {}
    few = CalibrationSet(
        tuple(islice(sample.items, CHECKED_IMAGES)), tuple(islice(sample.digests, CHECKED_IMAGES))
    )
    frames = next(iter(few.batches(bundle.spec.preprocess)))
    segments: dict[str, bytes] = {}
    for name, content in files.items():
        model = inline(onnx.load_model_from_string(content))
        parts = segments_of(model, plan)
        check_cut(model, parts, frames, name=name, limit=0.0)
        segments |= {segment_file(name, k): part for k, part in enumerate(parts)}
    return segments
