"""A TensorRT without a GPU, on the CUDA runtime of `tests/runtime/cuda/fakes.py`."""

# ruff: noqa: N802 - the names are TensorRT's
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from tests.runtime.cuda.fakes import ALIAS


class FakeTrt:
    """Replaces the module tensorrt: engines compute `answer(frames) -> {output: array}`.

    `raises` has the exception of a call. `own_graphs` makes it TensorRT for RTX, which captures
    graphs itself. What needs neither is tested on the real bindings (`bindings/`).
    """

    __name__, __version__ = "tensorrt", "10.3.0"
    LayerInformationFormat = SimpleNamespace(JSON=1)
    TensorIOMode = SimpleNamespace(INPUT=0, OUTPUT=1)
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED=2)
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER=1)

    class ILogger:
        def __init__(self):
            pass

    class IProfiler:
        def __init__(self):
            pass

    def __init__(
        self,
        cuda,
        *,
        answer,
        outputs,
        own_graphs=False,
        size=4,
        raises=None,
    ):
        self.cuda, self.answer, self.raises = cuda, answer, raises or {}
        self.answers = {}  # of engines whose bytes are these
        self.segments = {}  # bytes -> a `FakeModel`
        self.tensors = {"frames": (np.dtype(np.uint8), (size, size, 3)), **outputs}
        self.contexts = cuda.contexts
        if own_graphs:
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole", DISABLED="off")

    @staticmethod
    def nptype(kind):
        return kind

    def note(self, call):
        """Raise what `raises` has for it."""
        if call in self.raises:
            error = self.raises[call]
            raise type(error)(*error.args)  # a new one: its traceback holds the context

    def Runtime(self, logger):
        return SimpleNamespace(deserialize_cuda_engine=self._load)

    def _load(self, data):
        self.note("deserialize_cuda_engine")
        whole = FakeModel(self.answers.get(bytes(data), self.answer), ("frames",), self.tensors)
        return FakeEngine(self, self.segments.get(bytes(data), whole))


@dataclass(frozen=True)
class FakeModel:
    """What an engine computes: `answer(*inputs) -> {output: array}`; `tensors` has both."""

    answer: Callable[..., dict[str, np.ndarray]]
    inputs: tuple[str, ...]
    tensors: dict[str, tuple[np.dtype, tuple[int, ...]]]


class FakeEngine:
    def __init__(self, trt, model):
        self.model = model
        self.trt, self.num_io_tensors = trt, len(model.tensors)
        self.device_memory_size_v2 = 5000

    def get_tensor_name(self, i):
        return list(self.model.tensors)[i]

    def get_tensor_mode(self, name):
        return 0 if name in self.model.inputs else 1

    def get_tensor_dtype(self, name):
        self.trt.note("get_tensor_dtype")
        return self.model.tensors[name][0].type

    def get_tensor_shape(self, name):
        return (-1, *self.model.tensors[name][1])

    def get_tensor_profile_shape(self, name, profile):
        self.trt.note("get_tensor_profile_shape")
        return [(n, *self.model.tensors[name][1]) for n in (1, 1, 4)]

    def create_engine_inspector(self):
        return SimpleNamespace(get_engine_information=lambda form: "{}")

    def create_runtime_config(self):
        return SimpleNamespace(set_execution_context_allocation_strategy=lambda how: None)

    def create_execution_context(self, how):
        self.trt.cuda.calls.append(("create_execution_context", how))
        self.trt.note("create_execution_context")
        context = FakeContext(self.trt, self.model)
        self.trt.contexts.add(context)
        return context


class FakeContext:
    """Computes when its stream is waited for."""

    active_optimization_profile, profiler = 0, None

    def __init__(self, trt, model):
        self.model = model
        self.trt, self.addresses, self.shape, self.scratch = trt, {}, None, None

    def uses(self, pointer, size):
        """Tell whether it reads or writes memory of host or device at `pointer`."""
        used = [self.scratch or 0, *self.addresses.values()]
        return any(0 <= a - base < size for a in used for base in (pointer, pointer + ALIAS))

    def set_device_memory(self, pointer, size):
        self.trt.note("set_device_memory")
        assert pointer % 256 == 0
        self.trt.cuda.resolve(pointer, size)
        self.scratch = pointer

    def set_input_shape(self, name, shape):
        self.shape = shape
        return self._note("set_input_shape", name, shape)

    def set_tensor_address(self, name, pointer):
        self.addresses[name] = pointer
        return self._note("set_tensor_address", name)

    def infer_shapes(self):
        self._note("infer_shapes")
        return []

    def execute_async_v3(self, stream):
        assert set(self.addresses) == set(self.model.tensors), "an address is missing"
        self._note("execute_async_v3", stream)
        self.trt.cuda.enqueue(stream, self._compute)
        if self.profiler is not None:
            for i, layer in enumerate(("conv", "gemm")):
                self.profiler.report_layer_time(layer, 0.25 * (i + 1))
        return True

    def _note(self, call, *arguments):
        self.trt.note(call)
        self.trt.cuda.calls.append((call, *arguments))
        return True

    def _compute(self):
        inputs = self.model.inputs
        arrays = [self._view(name).copy() for name in inputs]
        self.trt.cuda.now += self.trt.cuda.costs["mapped"] * (self.addresses[inputs[0]] > ALIAS)
        for name, values in self.model.answer(*arrays).items():
            self._view(name)[:] = values

    def _view(self, name):
        dtype, row = self.model.tensors[name]
        address = self.addresses[name]
        size = self.shape[0] * int(np.prod(row)) * dtype.itemsize
        block = self.trt.cuda.resolve(address - ALIAS if address > ALIAS else address, size)
        if address <= ALIAS:
            assert self.trt.cuda._start(address, "device"), "TensorRT was given a host address"
        return block.view(dtype).reshape(self.shape[0], *row)
