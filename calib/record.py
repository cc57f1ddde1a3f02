"""The record of `finedge calibrate` in a bundle's provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx
import onnx_ir
import onnxruntime

from finedge import __version__
from finedge.provenance import DecisionRecord
from finedge.schema import Digest, Text, decode


@dataclass(frozen=True)
class Int8Record:
    """How the INT8 files of a bundle were made.

    Attributes:
        seed: it chose the images.
        source: the float file that they were made of.
        model_sha256: the digest of that file.
        images_sha256: the digests of the images that gave the ranges.
        method: the collector of the ranges.
        ranges: [low, high] of each tensor.
        placements: the nodes in INT8 and in float, by file.
        plan: every choice (`QuantizationPlan`); empty in bundles of version 0.1.
        qat: how the model was fine-tuned (`FineTuned.record`); empty without `--qat`.
        search: the points of `--max-drop` (`Outcome`); empty without a search.
        data: how many images of the data set were left out, and why.
        decision: the methods that were compared, and why this one was chosen.
        versions: of the libraries.
        confidence: the confidence of each variant.
        accuracy: what each variant costs in accuracy (`AccuracyCost`).
        exits: the early exits of each variant (`ExitFit`); empty without segments.
        label_tree: the groups of classes, and when they are named (`CoarserFit`); empty without
            `--label-tree`.
        seconds: what each step took: wall time, and CPU time (`StepTimes`).
    """

    seed: int
    source: Text
    model_sha256: Digest
    images_sha256: tuple[Digest, ...]
    method: Text
    ranges: Mapping[str, tuple[float, float]]
    placements: Mapping[str, Mapping[str, Any]]
    plan: Mapping[str, Any] = field(default_factory=dict)
    qat: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    decision: DecisionRecord = field(default_factory=DecisionRecord)
    versions: Mapping[str, str] = field(default_factory=dict)
    confidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    accuracy: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exits: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    label_tree: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Int8Record:
        """Return the record of a bundle of any version; `Misfit` where it is damaged."""
        return decode(cls, data)


def library_versions() -> dict[str, str]:
    """Return the versions of what makes INT8 files."""
    return {
        "finedge": __version__,
        "onnx": onnx.__version__,
        "onnx_ir": onnx_ir.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
