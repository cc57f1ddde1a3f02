"""Execution contexts of an engine: their options, and what differs between libraries."""

from __future__ import annotations

from typing import Any

from finedge.runtime.trt.calls import require
from finedge.runtime.trt.engine import Engine
from finedge.runtime.trt.library import numbers

# The oldest bindings tried whose infer_shapes may fail. Those of 10.3 (JetPack 6) and 10.7 raise
# without the GIL, which ends the process. There the run itself reports what is missing.
INFER_SHAPES_SINCE = (10, 13)


def may_infer_shapes(trt: Any) -> bool:
    """Tell whether `infer_shapes` of this binding may be called."""
    return trt.__name__ != "tensorrt" or numbers(trt.__version__) >= INFER_SHAPES_SINCE


def captures_itself(engine: Engine) -> bool:
    """Tell whether the library captures CUDA graphs by itself.

    TensorRT for RTX does: it exchanges kernels later, and captures again.
    """
    return hasattr(engine.trt, "CudaGraphStrategy")


def new_context(engine: Engine, *, graphs: bool) -> Any:
    """Return a context without scratch memory, whose owner gives it some.

    `graphs`: a library that captures CUDA graphs by itself does so.
    """
    trt, handle = engine.trt, engine.handle
    options = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if captures_itself(engine):
        options = _runtime_config(engine, allocation=options, graphs=graphs)
    context = handle.create_execution_context(options)
    require(context, "create_execution_context")
    return context


def _runtime_config(engine: Engine, *, allocation: Any, graphs: bool) -> Any:
    """Return the options of a context of TensorRT for RTX."""
    trt, config = engine.trt, engine.handle.create_runtime_config()
    strategy = trt.CudaGraphStrategy
    config.set_execution_context_allocation_strategy(allocation)
    config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if graphs else strategy.DISABLED
    # Compiled before the first answer, or the first answers would come from slower kernels.
    config.dynamic_shapes_kernel_specialization_strategy = (
        trt.DynamicShapesKernelSpecializationStrategy.EAGER
    )
    return config


def layer_times(trt: Any) -> Any:
    """Return a profiler whose `ms` adds up each layer's milliseconds."""

    class LayerTimes(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.ms: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.ms[layer_name] = self.ms.get(layer_name, 0.0) + ms

    return LayerTimes()
