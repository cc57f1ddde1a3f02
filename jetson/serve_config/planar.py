"""The copy of a bundle's model that DeepStream's stock nvinfer needs: float32 planes in, probabilities out.

nvinfer hands over float32 [B, 3, H, W] and takes every output for probabilities of one attribute (ClassifyPostprocessor compares each
with classifier-threshold). So the Cast and the Transpose at the head go, normalisation stays, and behind the deciding output, the only one
left, the temperature and a softmax are added.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finedge.bundle import FLOAT_FILE, HALF_FILE, PORTABLE_FILE, Bundle
from finedge.errors import FinedgeError, GateError
from finedge.golden import read_golden
from finedge.graph.patterns import TO_PLANES, frames_to_planes
from finedge.graph.walk import producers

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

# What TensorRT is given of a variant.
FILES = {"fp32": FLOAT_FILE, "fp16": HALF_FILE, "int8": PORTABLE_FILE}
PLANES, PROBABILITIES, PREFIX = "planar_frames", "probabilities", "planar/"
TO_ROWS = [0, 2, 3, 1]
# Of a probability: ONNX Runtime may fuse the two graphs differently.
TOLERANCE = 1e-5


def planar(bundle: Bundle, variant: str) -> onnx.ModelProto:
    """Return the copy of a variant: input `planar_frames` float32 [B, 3, H, W], RGB, 0..255; output `probabilities` float32 [B, classes].

    Raises:
        BundleError: the bundle lacks the variant.
        GateError: in ONNX Runtime the copy answers otherwise than the file it was made of.
    """
    import onnx

    from finedge.graph.onnx_file import read_model

    model = read_model(bundle.file(FILES[variant]))
    _take_planes(model, bundle)
    fitted = bundle.confidence(variant)
    _give_probabilities(model, bundle, temperature=fitted.temperature if fitted else 1.0)
    onnx.checker.check_model(model)
    prove(model, bundle, variant)
    return model


def prove(model: onnx.ModelProto, bundle: Bundle, variant: str) -> float:
    """Compare the copy with its file on the golden frame and on noise, in ONNX Runtime; return the largest difference of a probability.

    Raises:
        GateError: it is more than 1e-5.
    """
    from finedge.graph.onnx_file import read_onnx
    from finedge.runtime.classifier import probabilities

    size = (bundle.spec.input.height, bundle.spec.input.width, 3)
    noise = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    frames = np.stack([np.asarray(read_golden(bundle)["input"], np.uint8), noise])
    fitted = bundle.confidence(variant)
    scores = _run(
        read_onnx(bundle.file(FILES[variant])),
        bundle.spec.main.name,
        {bundle.spec.input.name: frames},
    )
    temperature = fitted.temperature if fitted else 1.0
    expected = probabilities(scores, temperature=temperature)
    found = _run(
        model.SerializeToString(),
        PROBABILITIES,
        {PLANES: frames.transpose(TO_PLANES).astype(np.float32)},
    )
    worst = float(np.abs(found - expected).max())
    if not worst <= TOLERANCE:
        raise GateError(
            f"the planar copy of {FILES[variant]} differs by {worst:.2g} in a probability",
            expected=f"at most {TOLERANCE:g}",
            fix="export again",
        )
    return worst


def _take_planes(model: onnx.ModelProto, bundle: Bundle) -> None:
    """Replace the uint8 NHWC input by float32 planes; where the graph wants rows first (it resizes by itself), they are turned back."""
    from onnx import TensorProto, helper

    graph, frames = model.graph, bundle.spec.input
    head = frames_to_planes(graph)
    if head:
        cast, transpose = head
        cast.input[0], cast.output[0] = PLANES, transpose.output[0]
        graph.node.remove(transpose)
    else:
        rows = PREFIX + "rows"
        for node in graph.node:
            node.input[:] = [rows if name == frames.name else name for name in node.input]
        graph.node.insert(
            0, helper.make_node("Transpose", [PLANES], [rows], name=rows, perm=TO_ROWS)
        )
    if PLANES in producers(graph):
        raise FinedgeError(
            f"a tensor of the model is called {PLANES}", expected="another name", fix="export again"
        )
    del graph.input[:]
    graph.input.append(
        helper.make_tensor_value_info(
            PLANES, TensorProto.FLOAT, ["batch", 3, frames.height, frames.width]
        )
    )


def _give_probabilities(model: onnx.ModelProto, bundle: Bundle, *, temperature: float) -> None:
    from onnx import TensorProto, helper, numpy_helper

    graph, scores = model.graph, bundle.spec.main.name
    if temperature != 1:
        graph.initializer.append(
            numpy_helper.from_array(np.array(temperature, np.float32), PREFIX + "temperature")
        )
        graph.node.append(
            helper.make_node(
                "Div",
                [scores, PREFIX + "temperature"],
                [PREFIX + "tempered"],
                name=PREFIX + "tempered",
            )
        )
        scores = PREFIX + "tempered"
    graph.node.append(
        helper.make_node("Softmax", [scores], [PROBABILITIES], name=PREFIX + PROBABILITIES, axis=-1)
    )
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info(
            PROBABILITIES, TensorProto.FLOAT, ["batch", len(bundle.spec.labels)]
        )
    )


def _run(model: bytes, output: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    from finedge.runtime.ort.int8_products import open_exactly

    return np.asarray(
        open_exactly(model).run([output], inputs)[0],
        np.float32,
    )  # as TensorRT multiplies


def prepared(model: onnx.ModelProto, folder: Path, *, variant: str, plugin: bool) -> bytes:
    """Return the bytes TensorRT is to parse: as `finedge build` gives it its graphs (`finedge.runtime.trt.build.graph.prepare`)."""
    import onnx

    from finedge.graph.onnx_file import read_model
    from finedge.runtime.trt.build.graph import prepare
    from finedge.runtime.trt.build.options import BuildOptions, Precision

    precision: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}
    onnx.save(model, folder / "planar.onnx")
    ready = prepare(
        read_model(folder / "planar.onnx"),
        BuildOptions(precision[variant], "plugin" if plugin else "decomposed"),
    )
    content: bytes = ready.SerializeToString()
    return content
