"""Labels and preprocessing in a model file's `metadata_props`, for readers without the bundle.

labels                     JSON list, in the order of the outputs' columns
preprocess                 JSON object: how a picture becomes the input; mean and std are already in
the graph model, backbone            names finedge                    the version that wrote the
file Image.BitmapPixelFormat, Image.ColorSpaceGamma, Image.NominalPixelRange     of the input, as
ONNX defines them
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from finedge import __version__
from finedge.graph.tags import copied
from finedge.spec import Spec

if TYPE_CHECKING:
    from onnx import ModelProto

PICTURE = {
    "Image.BitmapPixelFormat": "Rgb8",
    "Image.ColorSpaceGamma": "SRGB",
    "Image.NominalPixelRange": "NominalRange_0_255",
}


def with_facts(model: ModelProto, spec: Spec) -> ModelProto:
    """Return a copy of `model` with its labels and preprocessing; older ones are replaced."""
    labelled = copied(model)
    new = facts(spec)
    kept = [copied(p) for p in labelled.metadata_props if p.key not in new]
    del labelled.metadata_props[:]
    labelled.metadata_props.extend(kept)
    for key, value in new.items():
        labelled.metadata_props.add(key=key, value=value)
    return labelled


def facts(spec: Spec) -> dict[str, str]:
    """Return the properties by key; JSON in ASCII, since some readers take no other text."""
    return {
        "labels": json.dumps(list(spec.labels)),
        "preprocess": json.dumps(asdict(spec.preprocess)),
        "model": spec.model,
        "backbone": spec.backbone,
        "finedge": __version__,
        **PICTURE,
    }
