"""The calibration pass: the float model runs once over the images, and its tensors are observed.

Every tensor that may be quantized is observed, for all methods at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from finedge.calib.parallel import in_order
from finedge.calib.ranges.calibration_table import CalibrationTable, CalibrationTables
from finedge.calib.ranges.collectors import COLLECTORS, EXTREMES_ONLY, check_methods
from finedge.calib.ranges.histogram import Glimpse, TensorStatistics, glimpse
from finedge.errors import DataError, FinedgeError
from finedge.graph.edit import copied
from finedge.graph.inlining import inline
from finedge.graph.patterns import is_layer
from finedge.graph.tags import inner_tensors, tags
from finedge.graph.walk import consumers, producers
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.int8_products import PROVIDER
from finedge.runtime.ort.session import open_model, session_settings

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

    One batch of activations is in memory for each core. The tensors inside attention are not
    observed: it stays in float.

    Raises:
        UsageError: unknown method.
        DataError: no batches, or the model is quantized already.
        FinedgeError: a tensor holds NaN or infinity; the first layer that makes one is named.

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
    (tables,) = collect_curve(model, batches, methods=methods, sizes=())
    return tables


def collect_curve(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[np.uint8]],
    *,
    methods: Sequence[str],
    sizes: Collection[int],
) -> tuple[CalibrationTables, ...]:
    """Return the tables after each of `sizes` images, and after all, from the same pass.

    A size is reached with the batch that completes it. One beyond the last image gives no table.

    Raises:
        UsageError, DataError, FinedgeError: as `collect_ranges`.
    """
    check_methods(methods)
    observer = _Observer.of(inline(model), counting=not set(methods) <= EXTREMES_ONLY)
    curve: list[CalibrationTables] = []
    left = sorted(sizes)
    images = 0
    for seen in in_order(observer.look, _numbered(batches)):
        observer.observe(seen)
        images += seen[0].images
        if left and images >= left[0]:
            left = [size for size in left if size > images]
            curve.append(observer.tables(methods, images=images))
    if not images:
        raise DataError(
            "no calibration images",
            expected="at least one",
            fix="give --data DIR with a training split",
        )
    if not curve or curve[-1].images < images:
        curve.append(observer.tables(methods, images=images))
    return tuple(curve)


def _numbered(
    batches: Iterable[NDArray[np.uint8]],
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield each batch with the number of images before it."""
    first = 0
    for batch in batches:
        yield first, batch
        first += len(batch)


def refuse_quantized(graph: onnx.GraphProto) -> None:
    """Raise `DataError` for a graph with Q/DQ nodes or INT8 ops: its ranges say nothing new."""
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or "QLinear" in node.op_type:
            raise DataError(
                f"the model is already quantized: node '{node.name}' is a {node.op_type}",
                expected="the float model",
                fix="finedge export RUN --out BUNDLE writes the float file",
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


@dataclass(frozen=True)
class _Observer:
    """An open model whose observed tensors are outputs, and their statistics in running order."""

    graph: onnx.GraphProto = field(repr=False)
    session: onnxruntime.InferenceSession
    statistics: Mapping[str, TensorStatistics]
    sources: Mapping[str, str]
    counting: bool

    @classmethod
    def of(cls, model: onnx.ModelProto, *, counting: bool) -> _Observer:
        refuse_quantized(model.graph)
        sources, inner = range_sources(model.graph), inner_tensors(model.graph)
        names = [n for n in producers(model.graph) if n not in inner and n not in sources]
        session = _open(model, outputs=names)
        floats = {o.name for o in session.get_outputs() if o.type == "tensor(float)"}
        statistics = {n: TensorStatistics(counting=counting) for n in names if n in floats}
        return cls(model.graph, session, statistics, sources, counting)

    def look(self, numbered: tuple[int, NDArray[np.uint8]]) -> tuple[Glimpse, ...]:
        """Run uint8 [B, H, W, 3], after so many images; return what is kept of each tensor."""
        first, batch = numbered
        arrays = self.session.run(list(self.statistics), {self.session.get_inputs()[0].name: batch})
        return tuple(glimpse(a, first=first if self.counting else None) for a in arrays)

    def observe(self, seen: Sequence[Glimpse]) -> None:
        """Take the activations of a batch in."""
        for name, of_tensor in zip(self.statistics, seen, strict=True):
            self.statistics[name].add(of_tensor)
            if not self.statistics[name].finite:
                raise _not_finite(self.graph, name)

    def tables(self, methods: Iterable[str], *, images: int) -> CalibrationTables:
        """Return the ranges so far."""
        return CalibrationTables({m: self._table(m) for m in methods}, images)

    def _table(self, method: str) -> CalibrationTable:
        ranges = {name: COLLECTORS[method](s) for name, s in self.statistics.items()}
        shared = {n: ranges[source] for n, source in self.sources.items() if source in ranges}
        return CalibrationTable(method, {**ranges, **shared})


def _open(model: onnx.ModelProto, *, outputs: Iterable[str]) -> onnxruntime.InferenceSession:
    """Open a model with more outputs.

    Only what is observed is one: ONNX Runtime fuses the rest, ResNet-50 takes 7 % less CPU time.
    """
    copy = copied(model)
    present = {output.name for output in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in outputs if n not in present)
    settings = session_settings(SessionOptions(threads=1))  # `in_order` runs a batch on each core
    content = copy.SerializeToString()
    return open_model(content, settings, providers=[PROVIDER], name="the float model")


def _not_finite(graph: onnx.GraphProto, tensor: str) -> FinedgeError:
    """Return the error for a tensor with NaN or infinity; it names the layer that made it."""
    layer = _layer_before(graph, tensor)
    made_by = f", after layer '{layer}'" if layer else ""
    return FinedgeError(
        f"tensor '{tensor}'{made_by} holds NaN or infinity",
        expected="finite activations",
        fix="train again with a lower learning rate, then export",
    )


def _layer_before(graph: onnx.GraphProto, tensor: str) -> str:
    """Return the Conv or Gemm that made a tensor, through what only activates or adds; or ''."""
    made_by = producers(graph)
    waiting, seen = [tensor], set()
    while waiting:
        name = waiting.pop(0)
        node = made_by.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if is_layer(node):
            return str(node.name)
        waiting += node.input
    return ""
