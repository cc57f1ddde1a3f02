"""The copy of a bundle's model for DeepStream's nvinfer: float32 planes in, probabilities out.

nvinfer gives the model float32 [B, 3, H, W]. It reads every output as the probabilities of one
attribute: ClassifyPostprocessor compares each with classifier-threshold. So three parts change:

- the Cast and the Transpose at the head are removed; normalisation stays;
- only the main output stays;
- the temperature and a softmax follow it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finedge.bundle import VARIANTS, Bundle
from finedge.errors import FinedgeError, GateError
from finedge.golden import read_golden
from finedge.graph.patterns import TO_PLANES, frames_to_planes
from finedge.graph.walk import producers

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

# The file of each variant that TensorRT parses.
FILES = {variant: files[0] for variant, files in VARIANTS.items()}
PLANES, PROBABILITIES, PREFIX = "planar_frames", "probabilities", "planar/"
TO_ROWS = [0, 2, 3, 1]
TOLERANCE = 1e-5  # of a probability: ONNX Runtime may fuse the two graphs differently


def planar(bundle: Bundle, variant: str) -> onnx.ModelProto:
    """Return the copy of a variant's model.

    Its input is `planar_frames`, float32 [B, 3, H, W], RGB, 0..255. Its output is `probabilities`,
    float32 [B, classes].

    Raises:
        BundleError: the bundle lacks the variant.
        GateError: in ONNX Runtime the copy gives other answers than its source.
    """
    import onnx

    from finedge.graph.onnx_file import read_model

    model = read_model(bundle.file(FILES[variant]))
    _take_planes(model, bundle)
    _give_probabilities(model, bundle, temperature=_temperature(bundle, variant))
    onnx.checker.check_model(model)
    check_parity(model, bundle, variant)
    return model


def check_parity(model: onnx.ModelProto, bundle: Bundle, variant: str) -> float:
    """Compare the copy with its source in ONNX Runtime, on the golden frame and on noise.

    Returns:
        The largest difference of a probability.

    Raises:
        GateError: it is more than 1e-5.
    """
    from finedge.graph.onnx_file import read_onnx
    from finedge.runtime.classifier import probabilities

    size = (bundle.spec.input.height, bundle.spec.input.width, 3)
    noise = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    frames = np.stack([np.asarray(read_golden(bundle)["input"], np.uint8), noise])
    source = read_onnx(bundle.file(FILES[variant]))
    scores = _run(source, bundle.spec.main.name, {bundle.spec.input.name: frames})
    expected = probabilities(scores, temperature=_temperature(bundle, variant))
    planes = frames.transpose(TO_PLANES).astype(np.float32)
    actual = _run(model.SerializeToString(), PROBABILITIES, {PLANES: planes})
    difference = float(np.abs(actual - expected).max())
    if not difference <= TOLERANCE:
        raise GateError(
            f"the planar copy of {FILES[variant]} differs by {difference:.2g} in a probability",
            expected=f"at most {TOLERANCE:g}",
            fix="export again",
        )
    return difference


def _temperature(bundle: Bundle, variant: str) -> float:
    confidence = bundle.confidence(variant)
    return confidence.temperature if confidence else 1.0


def _take_planes(model: onnx.ModelProto, bundle: Bundle) -> None:
    """Replace the uint8 NHWC input by float32 planes.

    A graph that resizes by itself needs NHWC: there a Transpose turns the planes back.
    """
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
            f"a tensor of the model has the name {PLANES}",
            expected="another name",
            fix="export again",
        )
    shape: list[str | int] = ["batch", 3, frames.height, frames.width]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(PLANES, TensorProto.FLOAT, shape))


def _give_probabilities(model: onnx.ModelProto, bundle: Bundle, *, temperature: float) -> None:
    """Make the probabilities of the main output the only output."""
    from onnx import TensorProto, helper, numpy_helper

    graph, scores = model.graph, bundle.spec.main.name
    if temperature != 1:
        divisor, tempered = PREFIX + "temperature", PREFIX + "tempered"
        value = np.array(temperature, np.float32)
        graph.initializer.append(numpy_helper.from_array(value, divisor))
        graph.node.append(helper.make_node("Div", [scores, divisor], [tempered], name=tempered))
        scores = tempered
    name = PREFIX + PROBABILITIES
    graph.node.append(helper.make_node("Softmax", [scores], [PROBABILITIES], name=name, axis=-1))
    shape: list[str | int] = ["batch", len(bundle.spec.labels)]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, shape))


def _run(model: bytes, output: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return an output with exact INT8 products, as TensorRT multiplies."""
    from finedge.runtime.ort.int8_products import open_exactly

    return np.asarray(open_exactly(model).run([output], inputs)[0], np.float32)


def prepared(model: onnx.ModelProto, folder: Path, *, variant: str, plugin: bool) -> bytes:
    """Return the bytes that TensorRT is to parse, prepared as in `finedge build`.

    `folder` holds the model while it is read (`finedge.runtime.trt.build.graph.prepare`).
    """
    import onnx

    from finedge.graph.onnx_file import read_model
    from finedge.runtime.trt.build.graph import prepare
    from finedge.runtime.trt.build.options import BuildOptions, Precision

    precisions: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}
    options = BuildOptions(precisions[variant], "plugin" if plugin else "decomposed")
    path = folder / "planar.onnx"
    onnx.save(model, path)
    content: bytes = prepare(read_model(path), options).SerializeToString()
    return content
