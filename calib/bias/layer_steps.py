"""Runs a graph in steps: each ends at the output of one Conv or Gemm, which may then be changed.

One pass is enough to correct every layer after those before it. It needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from finedge.calib.parallel import in_order
from finedge.graph.patterns import is_layer
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.int8_products import PROVIDER
from finedge.runtime.ort.session import open_model, session_settings

Outputs = Sequence[NDArray[np.float32]]  # of one layer, one array [N, channels, ...] a batch
Change = Callable[[str, Outputs], Outputs]


@dataclass(frozen=True)
class _Step:
    """The nodes after the layer before, up to `layer`, opened in ONNX Runtime."""

    layer: onnx.NodeProto
    session: onnxruntime.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, tensors: Mapping[str, Any], *, keep: Set[str]) -> dict[str, Any]:
        """Return the tensors of one batch after the step: those of the names in `keep`."""
        results = self.session.run(self.outputs, {name: tensors[name] for name in self.inputs})
        after = {**tensors, **dict(zip(self.outputs, results, strict=True))}
        return {name: value for name, value in after.items() if name in keep}


class LayerSteps:
    """The steps of an inlined model with unique node names; the sessions are opened once.

    An INT8 file computes with the values of its Q/DQ pairs. Its layers make float, so a step ends
    at what the integer kernel rounds next.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.feed = model.graph.input[0].name
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        # A dequantized weight is made in the step that reads it: none is kept for later steps.
        self.constants = {
            node.output[0]: node
            for node in model.graph.node
            if all(name in self.stored for name in node.input if name)
        }
        self.model = model
        groups = _groups([n for n in model.graph.node if n.output[0] not in self.constants])
        self.steps = [
            self._step(group, groups[index + 1 :])
            for index, group in enumerate(groups)
            if is_layer(group[-1])
        ]

    def run(self, batches: Sequence[NDArray[np.uint8]], *, change: Change) -> None:
        """Run all batches through one step after the other.

        Args:
            batches: uint8 [N, H, W, 3] each; the activations that later steps read stay in memory.
            change: gets the name of a layer and its outputs, and returns what later steps read.
        """
        values: list[dict[str, Any]] = [{self.feed: batch} for batch in batches]
        for index, step in enumerate(self.steps):
            output = step.layer.output[0]
            read = {name for later in self.steps[index + 1 :] for name in later.inputs}
            before = (values.pop(0) for _ in range(len(values)))  # each is freed when it was read
            values = list(in_order(partial(step.run, keep=read | {output}), before))
            changed = change(step.layer.name, [tensors[output] for tensors in values])
            for tensors, array in zip(values, changed, strict=True):
                if output in read:
                    tensors[output] = array
                else:
                    del tensors[output]

    def _step(
        self, nodes: Sequence[onnx.NodeProto], later: Sequence[Sequence[onnx.NodeProto]]
    ) -> _Step:
        read = {name for node in nodes for name in node.input if name}
        constants = [self.constants[name] for name in sorted(read & set(self.constants))]
        read |= {name for node in constants for name in node.input if name}
        made = {name for node in (*constants, *nodes) for name in node.output}
        read_later = {name for group in later for node in group for name in node.input}
        inputs = tuple(sorted(read - made - set(self.stored)))
        outputs = tuple(sorted({n for node in nodes for n in node.output} & read_later))
        outputs = outputs if nodes[-1].output[0] in outputs else (*outputs, nodes[-1].output[0])
        graph = onnx.helper.make_graph(
            [*constants, *nodes],
            nodes[-1].name,
            [onnx.helper.make_tensor_value_info(name, self.types[name], None) for name in inputs],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [self.stored[name] for name in sorted(read & set(self.stored))],
        )
        return _Step(nodes[-1], self._open(graph), inputs, outputs)

    def _open(self, graph: onnx.GraphProto) -> onnxruntime.InferenceSession:
        content = onnx.helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        ).SerializeToString()
        # Products of attention end inside of a step: without VNNI their sums would saturate.
        # One thread: `in_order` runs a batch on each core.
        settings = session_settings(SessionOptions(exact=True, threads=1))
        # An arena keeps what it once held, and a step runs once for each correction: ResNet-50 with
        # CNL at 224 took 6.5 GB with arenas (`benchmarks/cpu/calibration_cost.py`).
        settings.enable_cpu_mem_arena = False
        return open_model(content, settings, providers=[PROVIDER], name="a step of the model")


def _groups(nodes: Sequence[onnx.NodeProto]) -> list[list[onnx.NodeProto]]:
    """Return the nodes of each step, in running order; the last group may end without a layer."""
    groups: list[list[onnx.NodeProto]] = [[]]
    for node in nodes:
        groups[-1].append(node)
        if is_layer(node):
            groups.append([])
    return [group for group in groups if group]
