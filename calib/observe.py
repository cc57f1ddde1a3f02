"""The calibration pass: the float model runs once over the images, and its tensors are observed.

Every tensor that may be quantized is observed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from finedge.calib.calibration_table import CalibrationTable, CalibrationTables
from finedge.calib.collectors import COLLECTORS, Collector
from finedge.errors import DataError, FinedgeError, UsageError, nearest
from finedge.graph.edit import copied
from finedge.graph.inlining import inline
from finedge.graph.tags import inner_tensors, tags
from finedge.graph.walk import consumers, producers

# Ops whose output holds only values of their input. Both are quantized with one range, so that the
# engine need not requantize.
SAME_VALUES = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
)
ACTIVATIONS = frozenset({"Relu", "Clip"})


def collect_ranges(
    model: onnx.ModelProto, batches: Iterable[NDArray[np.uint8]], *, method: str = "max"
) -> CalibrationTable:
    """Run the float model over `batches` and return the range of every float tensor.

    One batch of activations is in memory at a time. The tensors inside attention are not observed:
    it stays in float.

    Raises:
        UsageError: unknown method.
        DataError: no batches.
        FinedgeError: a tensor holds NaN or infinity; it is named.

    Examples:
        >>> table = collect_ranges(model, sample.batches(bundle.spec.preprocess), method="max")
        >>> int8_model, report = quantize_for_tensorrt(model, table)
    """
    return collect_tables(model, batches, methods=(method,))[method]


def collect_tables(
    model: onnx.ModelProto, batches: Iterable[NDArray[np.uint8]], *, methods: Sequence[str]
) -> CalibrationTables:
    """Run the float model once over `batches`; return the ranges by each of `methods`.

    Raises:
        UsageError, DataError, FinedgeError: as `collect_ranges`.
    """
    check_methods(methods)
    model = inline(model)
    sources = range_sources(model.graph)
    session = _open_with_all_outputs(model)
    floats = [o.name for o in session.get_outputs() if o.type == "tensor(float)"]
    observed = [name for name in floats if name not in sources]
    collectors = {name: {m: COLLECTORS[m]() for m in methods} for name in observed}
    images = sum(_observe(session, batch, collectors) for batch in batches)
    if not images:
        raise DataError(
            "no calibration images",
            expected="at least one",
            fix="give --data DIR with a training split",
        )
    tables = {}
    for method in methods:
        ranges = {name: by_method[method].range() for name, by_method in collectors.items()}
        shared = {name: ranges[source] for name, source in sources.items() if source in ranges}
        tables[method] = CalibrationTable(method, {**ranges, **shared})
    return CalibrationTables(tables, images)


def check_methods(methods: Iterable[str]) -> None:
    """Raise `UsageError` for a method that is not in `COLLECTORS`."""
    for method in methods:
        if method not in COLLECTORS:
            raise UsageError(
                f"unknown calibration method '{method}'", expected=nearest(method, COLLECTORS)
            )


def range_sources(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the tensors that take the range of another one: {tensor: the one observed for it}.

    What feeds only a ReLU or ReLU6 takes the range after it: values that are cut off anyway need no
    steps. What is only rearranged, or picked from, keeps the range it had.
    """
    readers, outputs = consumers(graph), {output.name for output in graph.output}
    direct: dict[str, str] = {}
    for node in (n for n in graph.node if not tags(n)):
        source, result = node.input[0] if node.input else "", node.output[0]
        read_once = len(readers.get(source, ())) == 1 and source not in outputs
        if node.op_type in SAME_VALUES:
            direct[result] = source
        elif node.op_type in ACTIVATIONS and read_once and source not in direct:
            direct[source] = result
    return {name: _last(name, direct) for name in direct}


def _last(name: str, follow: Mapping[str, str]) -> str:
    while name in follow:
        name = follow[name]
    return name


def _open_with_all_outputs(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open the model with every tensor outside of attention as an output."""
    copy = copied(model)
    outputs = {o.name for o in copy.graph.output} | inner_tensors(copy.graph)
    others = [name for name in producers(copy.graph) if name not in outputs]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in others)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _observe(
    session: onnxruntime.InferenceSession,
    batch: NDArray[np.uint8],
    collectors: Mapping[str, Mapping[str, Collector]],
) -> int:
    """Feed one batch to the collectors; return its number of images."""
    values = session.run(list(collectors), {session.get_inputs()[0].name: batch})
    for (name, by_method), array in zip(collectors.items(), values, strict=True):
        if not np.isfinite(array.min()) or not np.isfinite(array.max()):
            raise FinedgeError(
                f"tensor '{name}' holds NaN or infinity",
                expected="finite activations",
                fix="train again with a lower learning rate, then export",
            )
        for collector in by_method.values():
            collector.observe(array)
    return len(batch)
