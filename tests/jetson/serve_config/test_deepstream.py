import configparser
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from finedge.errors import GateError, UsageError
from finedge.graph.tags import tags
from finedge.jetson.serve_config.deepstream import CONFIG, LABELS, MODEL, folders, source_region
from finedge.jetson.serve_config.folder import Request
from finedge.jetson.serve_config.planar import FILES, TOLERANCE, check_parity, planar
from finedge.preprocess import preprocess
from finedge.runtime.backend import SessionOptions
from finedge.runtime.classifier import Classifier
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.ort.int8_products import open_exactly
from finedge.spec import Preprocess
from tests.jetson.serve_config.conftest import CONFIDENCE, SIZE, SPEC
from tests.jetson.serve_config.conftest import LABELS as NAMES

# Of a probability: what is not quantized computes in float16. Measured 3e-5, where probabilities
# differ by 6e-3 from frame to frame.
FLOAT16_TOLERANCE = 2e-4


def properties(folder):
    parser = configparser.ConfigParser(delimiters="=", strict=True)
    parser.optionxform = str
    parser.read_string(folder.files[CONFIG].decode())
    return dict(parser["property"])


def as_nvinfer(model, frames, *, scale=1.0, offsets=(0, 0, 0)):
    """Do what nvinfer does: y = net-scale-factor * (x - offset) in float planes.

    Every output is read.
    """
    session = open_exactly(model)
    (inputs,) = session.get_inputs()
    assert inputs.type == "tensor(float)"
    planes = scale * (frames.astype(np.float32) - np.float32(offsets)).transpose(0, 3, 1, 2)
    (probabilities,) = session.run(None, {inputs.name: planes})
    return probabilities


@pytest.mark.int8
@pytest.mark.parametrize("variant", FILES)
@pytest.mark.parametrize("fixture", ["bundle", "framed"])
def test_the_copy_gives_the_answers_of_the_bundles_classifier(fixture, variant, request):
    bundle = request.getfixturevalue(fixture)
    keys = properties(folders(bundle, Request(variant))[0])
    rng = np.random.default_rng(1)
    frames = rng.integers(
        0, 256, (3, bundle.spec.input.height, bundle.spec.input.width, 3), np.uint8
    )
    model = planar(bundle, variant).SerializeToString()
    offsets = [float(offset) for offset in keys["offsets"].split(";")]
    scale = float(keys["net-scale-factor"])
    probabilities = as_nvinfer(model, frames, scale=scale, offsets=offsets)
    backend = OnnxRuntimeBackend(SessionOptions(exact=True))  # nvinfer cuts no weights
    session = backend.open(bundle, variant=variant)
    with Classifier(bundle, session, variant, topk=6) as classifier:
        tops = classifier.rank(classifier.probabilities(classifier.scores(frames)))
    for row, top in zip(probabilities, tops, strict=True):
        np.testing.assert_allclose(row[[t.index for t in top]], [t.p for t in top], atol=TOLERANCE)


@pytest.mark.int8
@pytest.mark.parametrize("variant", FILES)
def test_the_model_for_tensorrt_has_no_functions_and_equal_answers(bundle, variant):
    content = folders(bundle, Request(variant))[0].files[MODEL]
    assert not onnx.load_from_string(content).functions
    frames = np.random.default_rng(2).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    expected = as_nvinfer(planar(bundle, variant).SerializeToString(), frames)
    np.testing.assert_allclose(
        as_nvinfer(content, frames),
        expected,
        atol=FLOAT16_TOLERANCE if variant == "int8" else TOLERANCE,
    )


def test_cast_and_transpose_are_gone_from_the_head(bundle):
    kinds = [n.op_type for n in planar(bundle, "fp32").graph.node if not tags(n)]
    assert "Transpose" not in kinds


@pytest.mark.parametrize("variant", FILES)
def test_the_keys_are_those_of_a_classifier_of_whole_frames(bundle, variant):
    (folder,) = folders(bundle, Request(variant, 4))
    keys = properties(folder)
    expected = {
        "network-type": "1",
        "process-mode": "1",
        "model-color-format": "0",
        "net-scale-factor": "1",
        "offsets": "0;0;0",
        "batch-size": "4",
    }
    assert expected.items() <= keys.items()
    assert keys["infer-dims"] == f"3;{SIZE};{SIZE}"
    assert keys["network-mode"] == {"fp32": "0", "int8": "1", "fp16": "2"}[variant]
    assert float(keys["classifier-threshold"]) == CONFIDENCE[variant]["reject"]
    assert (keys["onnx-file"], keys["labelfile-path"]) == (MODEL, LABELS)
    assert (
        onnx.load_from_string(folder.files[MODEL]).graph.output[0].name == keys["output-blob-names"]
    )
    assert "custom-lib-path" not in keys


def test_the_labels_are_one_line_that_nvinfer_can_split(bundle):
    (folder,) = folders(bundle, Request())
    (line,) = folder.files[LABELS].decode().splitlines()
    assert line.split(";") == [" ".join(name.replace(";", ",").split()) for name in NAMES]
    assert any("comma" in note for note in folder.notes)


def test_auto_is_fp16_and_fp32_without_it(bundle):
    assert properties(folders(bundle, Request())[0])["network-mode"] == "2"
    rest = replace(bundle, files={n: d for n, d in bundle.files.items() if n != FILES["fp16"]})
    assert properties(folders(rest, Request())[0])["network-mode"] == "0"


def test_with_the_plugin_its_attention_nodes_stay_as_they_are(bundle):
    library = Path("/usr/local/lib/libfinedge_plugin_autoload.so")
    (folder,) = folders(bundle, Request("fp16", plugin=library))
    assert properties(folder)["custom-lib-path"] == str(library)
    assert "--dynamicPlugins=/usr/local/lib/libfinedge_plugin.so" in folder.readme
    model = onnx.load_from_string(folder.files[MODEL])
    assert "CrossLayerAttention" in {n.op_type for n in model.graph.node}
    assert "CrossLayerAttention" not in {f.name for f in model.functions}


def test_the_plugin_needs_float16(bundle):
    with pytest.raises(UsageError, match="float16"):
        folders(bundle, Request("fp32", plugin=Path("plugin.so")))


def test_without_a_confidence_every_frame_has_a_label_and_a_note_says_so(make_bundle):
    (folder,) = folders(make_bundle(provenance={}), Request())
    assert properties(folder)["classifier-threshold"] == "0"
    assert any("no confidence" in note for note in folder.notes)


@pytest.mark.parametrize(
    ("rule", "filter_", "words", "absent"),
    [
        (Preprocess(36, SIZE), "3", ["cannot crop", "pillow-bilinear"], []),
        (Preprocess(36, SIZE, method="cv2-linear"), "1", ["cannot crop", "cv2-linear"], []),
        (
            Preprocess(SIZE, SIZE, rule="squash", method="cv2-area"),
            "3",
            ["cv2-area"],
            ["cannot crop"],
        ),
    ],
)
def test_notes_name_the_resize_rules_that_nvinfer_cannot_follow(
    make_bundle, rule, filter_, words, absent
):
    (folder,) = folders(make_bundle(replace(SPEC, preprocess=rule)), Request())
    assert properties(folder)["scaling-filter"] == filter_
    notes = " ".join(folder.notes)
    assert all(word in notes for word in words)
    assert not any(word in notes for word in absent)
    assert ("src-crop" in folder.readme) == ("cannot crop" in words)


def test_a_graph_that_resizes_asks_for_whole_frames(framed):
    (folder,) = folders(framed, Request())
    assert any("exactly 48 x 40" in note for note in folder.notes)
    assert properties(folder)["infer-dims"] == "3;40;48"
    assert "src-crop" not in folder.readme


@pytest.mark.parametrize("rule", ["short-side", "squash"])
@pytest.mark.parametrize("size", [(480, 640), (640, 480), (501, 333)])
def test_the_source_region_is_what_the_network_sees(rule, size):
    config = Preprocess(96, 64, method="cv2-area", rule=rule)
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    frame = np.stack([x * 255 / width, y * 255 / height, x * 0], axis=-1).astype(np.uint8)
    left, top, w, h = source_region(config, width=width, height=height)
    region = frame[top : top + h, left : left + w]
    squashed = preprocess(region, Preprocess(64, 64, method="cv2-area", rule="squash"))
    # In grey levels of a slope: less than two pixels of the frame.
    assert np.abs(squashed.astype(int) - preprocess(frame, config)).max() <= 3


def test_a_copy_with_other_answers_is_refused(bundle):
    model = planar(bundle, "fp32")
    weights = next(t for t in model.graph.initializer if t.name == "w_fc")
    values = onnx.numpy_helper.to_array(weights) * np.float32(1.5)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, "w_fc"))
    with pytest.raises(GateError, match="planar copy"):
        check_parity(model, bundle, "fp32")
