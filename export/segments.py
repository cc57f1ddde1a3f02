"""The model files of a bundle in segments, and the proof that the segments are the whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from finedge.bundle import HALF_FILE
from finedge.early_exit import Exit, Segments, segment_file
from finedge.errors import GateError, UsageError, nearest
from finedge.graph.edit import with_unique_names
from finedge.graph.macs import product_macs
from finedge.graph.segments import cut
from finedge.graph.sizes import shapes_of
from finedge.graph.walk import upstream
from finedge.options import comma_list
from finedge.runtime.agreement import FLOAT_LIMIT, FP16_LIMIT
from finedge.runtime.ort.segments import run_in_segments, run_whole
from finedge.spec import Spec

log = logging.getLogger(__name__)

# An exit that skips less hardly pays for the second session that runs: 2 % of EfficientNet-Lite0 at
# 160 px are 0.06 ms in INT8.
LEAST_SAVING = 0.02


@dataclass(frozen=True)
class Cuts:
    """The segments of some model files.

    Attributes:
        plan: where they are cut.
        files: their contents by name.
        differences: the largest difference between segments and whole, by the whole file's name.
    """

    plan: Segments = field(default_factory=Segments)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    differences: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the record of the export."""
        return {**asdict(self.plan), "differences": dict(self.differences)}


NO_CUT = Cuts()


def choose_exits(model: onnx.ModelProto, spec: Spec, *, names: str = "") -> Segments:
    """Return where a float model is cut.

    Args:
        model: the float model, its functions inlined.
        spec: its spec.
        names: local outputs in a comma list; empty: all that skip 2 % of the MACs or more.

    Raises:
        UsageError: the model has no local head, or none that skips anything; an unknown name, or
            one that skips too little.
    """
    known = [output.name for output in spec.outputs if output.role == "local"]
    if not known:
        raise UsageError(
            f"--segments: {spec.model} has no local head to leave at",
            expected="a model with local outputs, e.g. attend_rectify",
            fix="leave out --segments",
        )
    asked = comma_list(names, kind="exit")
    if unknown := [name for name in asked if name not in known]:
        raise UsageError(f"unknown exit '{unknown[0]}'", expected=nearest(unknown[0], known))
    counted = count_segments(model, [n for n in known if not asked or n in asked])
    saving = {e.output: 1 - e.macs / counted.macs for e in counted.exits}
    useful = tuple(e for e in counted.exits if saving[e.output] >= LEAST_SAVING)
    if not useful or (asked and len(useful) < len(counted.exits)):
        least = min(saving, key=lambda name: saving[name])
        raise UsageError(
            f"--segments: an exit at {least} of {spec.model} skips {saving[least]:.1%} of the "
            "multiply-accumulates",
            expected=f"at least {LEAST_SAVING:.0%}: a head that does not read the last map",
            fix="another model, or other --exits",
        )
    return Segments(useful, counted.macs)


def count_segments(model: onnx.ModelProto, outputs: list[str]) -> Segments:
    """Return the exits of a float model with the multiply-accumulates up to each."""
    inferred = onnx.shape_inference.infer_shapes(with_unique_names(model))
    macs = product_macs(inferred.graph, shapes_of(inferred))
    exits = []
    for k in range(len(outputs)):
        nodes = upstream(inferred.graph, outputs[: k + 1], through=lambda _: True)
        exits.append(Exit(outputs[k], sum(macs.get(node.name, 0) for node in nodes)))
    return Segments(tuple(exits), sum(macs.values()))


def cut_files(
    models: Mapping[str, onnx.ModelProto], plan: Segments, frames: NDArray[np.uint8]
) -> Cuts:
    """Cut float models, and compare the segments with the whole on `frames`, uint8 [N, H, W, 3].

    Raises:
        GateError: they differ by more than the order of sums (float16: than its rounding).
    """
    files: dict[str, bytes] = {}
    differences: dict[str, float] = {}
    for name, model in models.items():
        limit = FP16_LIMIT if name == HALF_FILE else FLOAT_LIMIT
        parts = segments_of(model, plan)
        differences[name] = check_cut(model, parts, frames, name=name, limit=limit)
        files |= {segment_file(name, k): part for k, part in enumerate(parts)}
    return Cuts(plan, files, differences)


def segments_of(model: onnx.ModelProto, plan: Segments) -> tuple[bytes, ...]:
    """Return the segments of a model as checked ONNX files."""
    parts = cut(model, [one.output for one in plan.exits])
    for part in parts:
        onnx.checker.check_model(part, full_check=True)
    return tuple(part.SerializeToString() for part in parts)


def check_cut(
    model: onnx.ModelProto,
    parts: tuple[bytes, ...],
    frames: NDArray[np.uint8],
    *,
    name: str,
    limit: float,
) -> float:
    """Return the largest difference between the segments and the whole, in ONNX Runtime.

    Raises:
        GateError: it is more than `limit` * max(1, max |score|).
    """
    whole = run_whole(model.SerializeToString(), frames, name=name)
    composed = run_in_segments(parts, frames, name=name)
    worst = max(float(np.abs(composed[k] - v).max()) for k, v in whole.items())
    scale = max(1.0, *(float(np.abs(v).max()) for v in whole.values()))
    if not worst <= limit * scale:  # NaN fails too
        raise GateError(
            f"the segments of {name} differ from the whole by {worst:.2e}",
            expected=f"at most {limit * scale:.2e} on {len(frames)} images",
            fix="export without --segments, and report this model",
        )
    log.info("%s: %d segments, max |delta| %.1e from the whole", name, len(parts), worst)
    return worst
