"""The calibration pass: the float model runs once over the images, and every tensor that may be quantized is observed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from finedge.calib.collectors import COLLECTORS, Collector
from finedge.calib.ranges import RangeTable
from finedge.errors import DataError, FinedgeError, UsageError, nearest
from finedge.graph.inlining import inline
from finedge.graph.tags import inner_tensors, tags

# Ops whose output holds only values of their input: both are quantized with one range, so that the engine need not requantize.
SAME_VALUES = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
)
ACTIVATIONS = frozenset({"Relu", "Clip"})


def collect_ranges(
    model: onnx.ModelProto, batches: Iterable[NDArray[np.uint8]], *, method: str = "max"
) -> RangeTable:
    """Run the float model over `batches` and return the range of every float tensor.

    One batch of activations is in memory at a time. The tensors inside attention are not observed:
    it stays in float.

    Raises:
        UsageError: unknown method.
        DataError: no batches.
        FinedgeError: a tensor holds NaN or infinity; it is named.
    """
    if method not in COLLECTORS:
        raise UsageError(
            f"unknown calibration method '{method}'", expected=nearest(method, COLLECTORS)
        )
    model = inline(model)
    stand_in = stand_ins(model.graph)
    session = _open_with_all_outputs(model)
    observed = [
        o.name
        for o in session.get_outputs()
        if o.type == "tensor(float)" and o.name not in stand_in
    ]
    collectors = {name: COLLECTORS[method]() for name in observed}
    seen = sum(_observe(session, batch, collectors) for batch in batches)
    if not seen:
        raise DataError(
            "no calibration images",
            expected="at least one",
            fix="give --data DIR with a training split",
        )
    ranges = {name: c.range() for name, c in collectors.items()}
    return RangeTable(
        method,
        {
            **ranges,
            **{name: ranges[source] for name, source in stand_in.items() if source in ranges},
        },
    )


def stand_ins(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the tensors that take over the range of another one: {tensor: the tensor observed for it}.

    What feeds only a ReLU or ReLU6 takes the range behind it: values that are cut off anyway need no steps. What is only
    rearranged, or picked from, keeps the range it had.
    """
    uses = Counter(name for node in graph.node for name in node.input) + Counter(
        o.name for o in graph.output
    )
    direct: dict[str, str] = {}
    for node in (n for n in graph.node if not tags(n)):
        if node.op_type in SAME_VALUES:
            direct[node.output[0]] = node.input[0]
        elif (
            node.op_type in ACTIVATIONS and uses[node.input[0]] == 1 and node.input[0] not in direct
        ):
            direct[node.input[0]] = node.output[0]
    return {name: _last(name, direct) for name in direct}


def _last(name: str, follow: Mapping[str, str]) -> str:
    while name in follow:
        name = follow[name]
    return name


def _open_with_all_outputs(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open the model with every tensor outside of attention as an output."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    outputs = {o.name for o in copy.graph.output} | inner_tensors(copy.graph)
    copy.graph.output.extend(
        onnx.ValueInfoProto(name=name)
        for node in copy.graph.node
        for name in node.output
        if name and name not in outputs
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _observe(
    session: onnxruntime.InferenceSession,
    batch: NDArray[np.uint8],
    collectors: Mapping[str, Collector],
) -> int:
    """Feed one batch to the collectors; return its number of images."""
    values = session.run(list(collectors), {session.get_inputs()[0].name: batch})
    for (name, collector), array in zip(collectors.items(), values, strict=True):
        if not np.isfinite(array.min()) or not np.isfinite(array.max()):
            raise FinedgeError(
                f"tensor '{name}' holds NaN or infinity",
                expected="finite activations",
                fix="train again with a lower learning rate, then export",
            )
        collector.observe(array)
    return len(batch)
