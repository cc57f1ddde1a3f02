"""A bundle in segments that needs no torch: an early head and the rest, float and INT8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from finedge.bundle import Bundle
from finedge.early_exit import segment_file
from finedge.graph.onnx_file import read_model
from finedge.graph.segments import cut
from finedge.spec import Output
from tests.runtime.conftest import COLOURS, FILES, SIZE, SPEC, quantize, tiny_model

HEAD, MAIN = "local_0", "logits"
TWO_HEADS = type(SPEC)(
    "two_heads",
    "none",
    SPEC.labels,
    SPEC.preprocess,
    SPEC.input,
    (Output(MAIN), Output(HEAD, role="local")),
)


def two_heads() -> onnx.ModelProto:
    """Return the tiny model whose head is local, and a second layer with a head of its own.

    The map between them has 8 channels; the main head reads the local scores too.
    """
    rng = np.random.default_rng(1)
    model, classes = tiny_model(), len(COLOURS)
    graph = model.graph
    for node in graph.node:
        node.output[:] = [HEAD if name == MAIN else name for name in node.output]
    stored = {
        "kernels2": rng.normal(0, 0.2, (8, 8, 3, 3)),
        "weights2": rng.normal(0, 0.5, (classes, 8)),
        "bias2": np.zeros(classes),
    }
    graph.node.extend(
        [
            helper.make_node("Conv", ["relu", "kernels2"], ["conv2"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["conv2"], ["relu2"]),
            helper.make_node("GlobalAveragePool", ["relu2"], ["pooled2"]),
            helper.make_node("Flatten", ["pooled2"], ["flat2"]),
            helper.make_node("Gemm", ["flat2", "weights2", "bias2"], ["own"], transB=1),
            helper.make_node("Sum", ["own", HEAD], [MAIN]),
        ]
    )
    graph.initializer.extend(
        numpy_helper.from_array(v.astype(np.float32), k) for k, v in stored.items()
    )
    shape = ["batch", classes]
    graph.output.append(helper.make_tensor_value_info(HEAD, TensorProto.FLOAT, shape))
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="session")
def whole_files(tmp_path_factory):
    """The whole model files by their name."""
    folder = tmp_path_factory.mktemp("two_heads")
    files = {name: folder / name for name in FILES.values()}
    onnx.save(two_heads(), files[FILES["fp32"]])
    quantize(files[FILES["fp32"]], files[FILES["int8"]], unsigned=True)
    quantize(files[FILES["fp32"]], files[FILES["portable"]], unsigned=False)
    return files


@pytest.fixture
def make_early_bundle(tmp_path, whole_files, tiny_data):
    """Make a bundle in segments: `make_early_bundle(threshold=0.9)`; None: without thresholds."""

    def make(name: str = "early", *, threshold: float | None = 0.9, rules: bool = True) -> Bundle:
        files = dict(whole_files)
        for file, path in whole_files.items():
            for k, part in enumerate(cut(read_model(path), [HEAD])):
                files[segment_file(file, k)] = part.SerializeToString()
        segments = {"exits": [{"output": HEAD, "macs": 100}], "macs": 200}
        rule = {"output": HEAD, "temperature": 2.0, "threshold": threshold}
        calibrated = {"exits": {v: [rule] for v in ("fp32", "int8")}} if rules else {}
        return Bundle.create(
            tmp_path / f"{name}.finedge",
            TWO_HEADS,
            files=files,
            provenance={
                "train": {"data": {"root": str(tiny_data), "seed": 0}},
                "export": {"segments": segments},
                "calibrate": calibrated,
            },
        )

    return make


@pytest.fixture
def batch() -> NDArray[np.uint8]:
    """Noise around the colours: uint8 [12, SIZE, SIZE, 3]."""
    rng = np.random.default_rng(5)
    colours = np.array([*COLOURS.values()] * 2)[:, None, None]
    return np.clip(rng.normal(0, 60, (12, SIZE, SIZE, 3)) + colours, 0, 255).astype(np.uint8)
