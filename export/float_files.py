"""The ONNX files that `finedge export` writes, each the same function in the form that is cheapest for those who read it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import onnx
import onnx_ir as ir
import torch

from finedge.bundle import FLOAT_FILE, HALF_FILE, PROJECTED_FILE, Tap
from finedge.export.float16_file import float16_file
from finedge.export.passes import absorb
from finedge.export.passes.cost import ModelCost, attention_costs
from finedge.export.passes.frame import accept_frames
from finedge.spec import Preprocess, Spec
from finedge.train.cost import macs
from finedge.train.models import build_model
from finedge.train.models.base import FineGrained


def count_cost(model: FineGrained, spec: Spec, graph: ir.Model) -> ModelCost:
    """Count a model's attention from its graph, and all of it, and the model `plain` on its backbone, on meta tensors."""
    with torch.device("meta"):
        plain = build_model("plain", num_classes=len(spec.labels), backbone=spec.backbone)
    projected, without = (
        macs(m, height=spec.input.height, width=spec.input.width)
        for m in (copy.deepcopy(model).to("meta"), plain)
    )
    return ModelCost(attention_costs(graph), projected, without)


def float_files(
    graph: ir.Model, cost: ModelCost, taps: tuple[Tap, ...]
) -> dict[str, onnx.ModelProto]:
    """Return the files by name: FLOAT_FILE; PROJECTED_FILE, which INT8 is made of, only where INT8 is cheaper in another form; HALF_FILE.

    FLOAT_FILE and HALF_FILE have the same form: both count MACs alike. The taps are tensors of FLOAT_FILE and of PROJECTED_FILE.
    """
    keep = {tap.tensor for tap in taps}
    files = {FLOAT_FILE: ir.to_proto(absorb(graph, cost.absorbed("fp32"), keep=keep))}
    if cost.absorbed("int8") != cost.absorbed("fp32"):
        files[PROJECTED_FILE] = ir.to_proto(absorb(graph, cost.absorbed("int8"), keep=keep))
    return {**files, HALF_FILE: float16_file(files[FLOAT_FILE])}


def accepting_frames(
    files: Mapping[str, onnx.ModelProto], how: Preprocess
) -> dict[str, onnx.ModelProto]:
    """Return the files with the resize and crop of `how` at their head, where it says that the graph takes whole frames."""
    if how.frame is None:
        return dict(files)
    height, width = how.frame
    return {
        name: accept_frames(model, how, height=height, width=width) for name, model in files.items()
    }
