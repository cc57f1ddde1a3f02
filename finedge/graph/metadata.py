"""Labels and preprocessing in a model file's `metadata_props`, for readers without the bundle.

labels             JSON list, in the order of the outputs' columns
preprocess         JSON object: how a picture becomes the input; the graph applies mean and std
model, backbone    names
finedge            the version that wrote the file
Image.BitmapPixelFormat, Image.ColorSpaceGamma, Image.NominalPixelRange
                   of the input, as ONNX defines them
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from finedge import __version__
from finedge.graph.edit import copied, replace_items
from finedge.spec import Spec

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGE_PROPERTIES = {
    "Image.BitmapPixelFormat": "Rgb8",
    "Image.ColorSpaceGamma": "SRGB",
    "Image.NominalPixelRange": "NominalRange_0_255",
}


def with_metadata(model: ModelProto, spec: Spec) -> ModelProto:
    """Return a copy of `model` with its labels and preprocessing; they replace older ones."""
    labelled = copied(model)
    properties = metadata_of(spec)
    others = [p for p in labelled.metadata_props if p.key not in properties]
    replace_items(labelled.metadata_props, others)
    for key, value in properties.items():
        labelled.metadata_props.add(key=key, value=value)
    return labelled


def metadata_of(spec: Spec) -> dict[str, str]:
    """Return the properties by key; JSON in ASCII, since some readers take no other text."""
    return {
        "labels": json.dumps(list(spec.labels)),
        "preprocess": json.dumps(asdict(spec.preprocess)),
        "model": spec.model,
        "backbone": spec.backbone,
        "finedge": __version__,
        **IMAGE_PROPERTIES,
    }
