"""An engine whose only layer is the attention kernel: for an execution lane without TensorRT.

Memory, streams and graphs are real. The input is the query map as float16 rows, the output is the
answer; keys and values lie on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.ops import cross_layer_attention
from finedge.runtime.cuda.binding import Cuda
from finedge.runtime.cuda.libcuda import LIBRARY
from finedge.runtime.trt.engine import Engine, EngineTensor
from finedge.runtime.trt.plugin.driver import Driver
from finedge.runtime.trt.plugin.launch import HALF, AttentionShape, MapLayout
from finedge.runtime.trt.plugin.ready_attention import ReadyAttention

QUERIES, KEYS, CHANNELS = 49, 196, 256
MOST = 8  # images a batch
SCRATCH = 8 << 20  # bytes, where split keys leave their parts
SCALE = CHANNELS**-0.5


class Library:
    """Stands for the module tensorrt; a lane asks it for a logger."""

    class ILogger:  # noqa: D106
        pass

    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    __name__ = "fake_engine"


TRT = Library()


@dataclass
class Handle:
    """Stands for ICudaEngine. `before` runs before the kernel, and may spoil a capture."""

    cuda: Cuda
    driver: Driver
    maps: int  # address of keys, which are the values too, for MOST images
    before: Callable[[int], object] = lambda stream: None
    device_memory_size_v2: int = SCRATCH

    def create_execution_context(self, strategy: object) -> Context:  # noqa: D102
        return Context(self)


@dataclass
class Context:
    """Stands for IExecutionContext."""

    engine: Handle
    addresses: dict[str, int] = field(default_factory=dict)
    scratch: int = 0
    active_optimization_profile: int = 0
    ready: ReadyAttention | None = None

    def set_device_memory(self, pointer: int, size: int) -> None:  # noqa: D102
        self.scratch = pointer

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:  # noqa: D102
        layouts = [
            MapLayout.of("HWC8", kind=HALF, channels=CHANNELS, positions=n).map()
            for n in (QUERIES, KEYS, KEYS, QUERIES)
        ]
        problem = AttentionShape(
            *layouts, None, QUERIES, KEYS, CHANNELS, CHANNELS, 1, shape[0], SCALE, 0
        )
        self.ready = ReadyAttention(self.engine.driver, problem, shared=True)
        return self.ready.plan.workspace_bytes <= SCRATCH

    def set_tensor_address(self, name: str, address: int) -> bool:  # noqa: D102
        self.addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:  # noqa: D102
        return []

    def execute_async_v3(self, stream: int) -> bool:  # noqa: D102
        assert self.ready is not None
        self.engine.before(stream)
        maps = (self.addresses["q"], self.engine.maps, self.engine.maps, self.addresses["y"])
        self.ready.launch(maps, workspace=self.scratch, stream=stream)
        return True


def keys() -> NDArray[np.float16]:
    """Return the keys [MOST, KEYS, CHANNELS]."""
    generator = np.random.default_rng(1)
    return generator.standard_normal((MOST, KEYS, CHANNELS)).astype(np.float16)


def queries(batch: int, seed: int) -> NDArray[np.float16]:
    """Return queries [batch, QUERIES * CHANNELS]."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((batch, QUERIES * CHANNELS)).astype(np.float16)


def exact(batch: NDArray[np.float16]) -> NDArray[np.floating]:
    """Return the answer in float64 [batch, QUERIES * CHANNELS]."""
    q = batch.reshape(len(batch), QUERIES, 1, CHANNELS).transpose(0, 3, 1, 2).astype(np.float64)
    k = (
        keys()[: len(batch)]
        .reshape(len(batch), KEYS, 1, CHANNELS)
        .transpose(0, 3, 1, 2)
        .astype(np.float64)
    )
    return (
        cross_layer_attention(q, k, k, scale=SCALE)[..., 0]
        .transpose(0, 2, 1)
        .reshape(len(batch), -1)
    )


def engine(cuda: Cuda, **options: Any) -> Engine:
    """Return an engine for batches of 1 to MOST; its maps are allocated and never freed."""
    host = keys()
    address = cuda.allocate("cudaMalloc", host.nbytes, size=host.nbytes)
    cuda(
        "cudaMemcpy",
        address,
        host.ctypes.data,
        host.nbytes,
        cuda.api.cudaMemcpyKind.cudaMemcpyHostToDevice,
    )
    row = (QUERIES * CHANNELS,)
    half = np.dtype(np.float16)
    handle = Handle(cuda, Driver(LIBRARY), address, **options)
    inputs, outputs = (EngineTensor("q", half, row),), (EngineTensor("y", half, row),)
    return Engine(TRT, None, handle, inputs, outputs, 1, MOST)
