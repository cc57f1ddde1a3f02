"""A bundle small enough for every test, and real: it tells six colours apart, float and INT8."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from finedge.bundle import GOLDEN, Bundle, Tap
from finedge.golden import pack, synthetic_frame, tap_sample
from finedge.preprocess import preprocess
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.spec import Input, Preprocess, Spec

COLOURS = {
    "blue": (30, 50, 210),
    "green": (40, 180, 60),
    "grey": (128, 128, 128),
    "orange": (240, 140, 20),
    "red": (210, 30, 40),
    "white": (240, 240, 240),
}
SIZE = 32
SPEC = Spec("tiny", "none", tuple(COLOURS), Preprocess(resize=36, crop=SIZE), Input(SIZE, SIZE))
TAP = Tap("features", "relu")
FILES = {"fp32": "model.fp32.onnx", "int8": "model.int8.cpu.onnx", "portable": "model.int8.onnx"}


def colour_frame(name: str, *, seed: int, size: tuple[int, int] = (48, 40)) -> NDArray[np.uint8]:
    """Draw noise around a colour: uint8 [H, W, 3]."""
    noise = np.random.default_rng([seed, list(COLOURS).index(name)]).normal(0, 20, (*size, 3))
    return np.clip(noise + COLOURS[name], 0, 255).astype(np.uint8)


def tiny_model() -> onnx.ModelProto:
    """Frames -> Conv -> Relu -> average -> Gemm: the nearest colour, plus five random channels."""
    rng = np.random.default_rng(0)
    kernels = rng.normal(0, 0.3, (8, 3, 3, 3)) / 255
    kernels[:3] = 0
    kernels[[0, 1, 2], [0, 1, 2], 1, 1] = 1 / 255
    colours = np.array(list(COLOURS.values())) / 255
    weights = np.concatenate([2 * colours, rng.normal(0, 0.05, (len(COLOURS), 5))], axis=1) * 10
    stored = {
        "kernels": kernels,
        "shift": np.full(8, 0.01),
        "weights": weights,
        "bias": -10 * (colours**2).sum(axis=1),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernels", "shift"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(COLOURS)])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def quantize(model: Path, out: Path, *, unsigned: bool) -> None:
    """Write a Q/DQ copy of a model.

    `unsigned`: U8 activations (the CPU form), else S8 symmetric ones (the portable form).
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            frames = [colour_frame(colour, seed=100) for colour in COLOURS]
            batches = [preprocess(frame, SPEC.preprocess)[None] for frame in frames]
            self.batches = iter([{"frames": batch} for batch in batches])

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            return next(self.batches, None)

    activations = QuantType.QUInt8 if unsigned else QuantType.QInt8
    quantize_static(
        model,
        out,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "Gemm", "GlobalAveragePool"],
        extra_options={"ActivationSymmetric": not unsigned, "WeightSymmetric": True},
    )


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundle's model files by their name; do not change them."""
    folder = tmp_path_factory.mktemp("tiny_files")
    files = {name: folder / name for name in FILES.values()}
    onnx.save(tiny_model(), files[FILES["fp32"]])
    quantize(files[FILES["fp32"]], files[FILES["int8"]], unsigned=True)
    quantize(files[FILES["fp32"]], files[FILES["portable"]], unsigned=False)
    return files


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """A data set in split folders: 4 train, 2 val and 3 test images a colour."""
    root = tmp_path / "colours"
    for split, count, seed in (("train", 4, 0), ("val", 2, 10), ("test", 3, 20)):
        for colour in COLOURS:
            folder = root / split / colour
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(colour_frame(colour, seed=seed + i)).save(folder / f"{i}.png")
    return root


@dataclass(frozen=True)
class BundleMaker:
    """Makes bundles of the tiny model with the files a test asks for."""

    folder: Path
    models: dict[str, Path]
    data: Path

    def __call__(
        self,
        name: str = "tiny",
        *,
        files: tuple[str, ...] = tuple(FILES.values()),
        taps: tuple[Tap, ...] = (TAP,),
    ) -> Bundle:
        """Write `name`.finedge with `files` and a golden.npz of what they answer."""
        data = {"root": str(self.data), "seed": 0}
        provenance = {"train": {"data": data, "run": str(self.folder / "run")}}
        bare = Bundle.create(
            self.folder / f"{name}.finedge",
            SPEC,
            files={f: self.models[f] for f in files},
            taps=taps,
            provenance=provenance,
        )
        return bare.extend("export", {GOLDEN: pack(golden_of(bare))}, {})


def golden_of(bundle: Bundle) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of golden.npz, the same whichever CPU makes them."""
    frame = synthetic_frame()
    pixels = preprocess(frame, bundle.spec.preprocess)
    backend = OnnxRuntimeBackend(SessionOptions(exact=True))
    arrays: dict[str, NDArray[np.generic]] = {"frame": frame, "input": pixels}
    for file in bundle.files:
        outputs = backend.open_file(bundle, file)(pixels[None])
        arrays |= {f"{file}/{name}": values for name, values in outputs.items()}
    if FILES["fp32"] in bundle.files:
        outputs = backend.open_with_taps(bundle)(pixels[None])
        taps = {name: values for name, values in outputs.items() if name.startswith("tap/")}
        arrays |= {name: tap_sample(values) for name, values in taps.items()}
    return arrays


@pytest.fixture
def make_bundle(tmp_path: Path, tiny_files: dict[str, Path], tiny_data: Path) -> BundleMaker:
    """Make bundles with chosen files: `make_bundle("float", files=("model.fp32.onnx",))`."""
    return BundleMaker(tmp_path, dict(tiny_files), tiny_data)


@pytest.fixture
def tiny_bundle(make_bundle: BundleMaker) -> Bundle:
    """A bundle with fp32, both INT8 forms, a tap and a golden frame.

    Its record says that it was trained on `tiny_data`. A test may change it.
    """
    return make_bundle()


@pytest.fixture
def frames() -> list[NDArray[np.uint8]]:
    """One frame of each colour, in label order, of different sizes."""
    return [colour_frame(c, seed=50, size=(40 + 4 * i, 60 - 3 * i)) for i, c in enumerate(COLOURS)]
