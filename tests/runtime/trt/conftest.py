"""Sessions on a fake GPU; and the real TensorRT for RTX where it is installed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from finedge.runtime.backend import SessionInfo, SessionOptions
from finedge.runtime.cuda.binding import Cuda
from finedge.runtime.cuda.gpu import gpu
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.trt.backend import TensorRtBackend
from finedge.runtime.trt.build import builder
from finedge.runtime.trt.build.compiler import CompiledEngine
from finedge.runtime.trt.build.options import BuildOptions
from finedge.runtime.trt.engine import Engine
from finedge.runtime.trt.library import TrtLibrary, load_library, why_not
from finedge.runtime.trt.log import Messages
from finedge.runtime.trt.session import TensorRtSession
from finedge.spec import Input, Preprocess, Spec
from tests.runtime.cuda.fakes import FakeCuda
from tests.runtime.trt.fakes import FakeTrt

SIDE = 4
SPEC = Spec("tiny", "none", ("a", "b", "c"), Preprocess(resize=SIDE, crop=SIDE), Input(SIDE, SIDE))
OUTPUTS = {"logits": (np.dtype(np.float32), (3,)), "tap/half": (np.dtype(np.float16), (2, 2))}


def answer(frames):
    """Mean of each colour, and four pixels of red."""
    return {
        "logits": frames.mean(axis=(1, 2), dtype=np.float32),
        "tap/half": frames[:, :2, :2, 0] / np.float16(4),
    }


def frames(count, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def right(outputs, batch):
    """Tell whether a session's outputs are exactly `answer(batch)`, as float32."""
    expected = answer(batch)
    assert set(outputs) == set(expected)
    return all(
        outputs[name].dtype == np.float32
        and np.array_equal(outputs[name], values.astype(OUTPUTS[name][0]).astype(np.float32))
        for name, values in expected.items()
    )


@dataclass
class Bench:
    """A fake GPU with a fake TensorRT on it."""

    cuda: FakeCuda
    trt: FakeTrt

    def load(self):
        return Engine.load(b"engine", trt=self.trt, file="x.engine")

    def open(self):
        mapped = bool(self.cuda.properties.integrated)
        return TensorRtSession(
            self.load(),
            SPEC,
            info=SessionInfo("tensorrt", "Pretended", "x.engine", "fp16"),
            cuda=Cuda(self.cuda),
            mapped=mapped,
        )


@pytest.fixture(scope="session")
def rtx():
    """The real builder."""
    why = why_not("tensorrt-rtx")
    if why:
        pytest.skip(why)
    return load_library("tensorrt-rtx")


@pytest.fixture
def bench():
    """Make benches: `bench(own_graphs=True)`, `bench(raises={"infer_shapes": RuntimeError()})`."""

    def make(**trt):
        return Bench(cuda := FakeCuda(), FakeTrt(cuda, answer=answer, outputs=OUTPUTS, **trt))

    return make


@dataclass
class Device:
    """A fake device on which bundles are opened.

    Engines answer what ONNX Runtime answers of their file (`runs`), plus `off`. `built` holds the
    options of the engines that were built.
    """

    cuda: FakeCuda
    library: TrtLibrary
    built: list[BuildOptions]
    off: float = 0.0

    def build(self, bundle, options, *, library):
        """Build with the real builder; only the compiler is replaced."""
        return builder.build(bundle, options, library=library)

    def compile(self, model, order):
        """Return the names of the precision and the segment as the bytes of an engine."""
        self.built.append(order.options)
        part = order.options.segment
        data = (order.options.precision + ("" if part is None else f"/{part}")).encode()
        return CompiledEngine(data, 0.0, Messages(), order.options.typing)

    def runs(self, bundle, options):
        """Make the engines of a precision answer as the bundle's file does."""
        backend = OnnxRuntimeBackend(options=SessionOptions(threads=1))
        model = (
            backend.open_with_taps(bundle)
            if options.debug_taps
            else backend.open_file(bundle, options.file)
        )
        self.library.trt.answers[options.precision.encode()] = lambda frames: {
            name: value + self.off for name, value in model(frames).items()
        }


@pytest.fixture
def device(monkeypatch, tiny_bundle):
    cuda = FakeCuda(integrated=True)
    outputs = {"logits": (np.dtype(np.float32), (6,))}
    trt = FakeTrt(cuda, answer=answer, outputs=outputs, size=32)
    device = Device(cuda, TrtLibrary("tensorrt", "trt", trt, "10.3.0"), [])
    for target, value in {
        "finedge.runtime.trt.session.binding": lambda: cuda,
        "finedge.runtime.trt.backend.binding": lambda: cuda,
        "finedge.runtime.cuda.gpu.gpu": lambda: gpu(cuda),
        "finedge.runtime.trt.library.load_library": lambda name: device.library,
        "finedge.runtime.trt.build.options.gpu": lambda: gpu(cuda),
        "finedge.runtime.trt.build.builder.compile_engine": device.compile,
    }.items():
        monkeypatch.setattr(target, value)
    monkeypatch.setattr(TensorRtBackend, "why_not", lambda self: None)
    for precision in ("fp32", "int8"):
        device.runs(tiny_bundle, BuildOptions(precision))
    return device
