"""Calibration of what cannot be calibrated: a typed error, and the bundle stays as it was."""

import logging
import shutil

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.calib.command import calibrate
from finedge.calib.options import Int8Options
from finedge.calib.ranges.observe import collect_ranges
from finedge.cli import main
from finedge.errors import DataError, FinedgeError
from tests.calib.conftest import batches, pictures

FEW = Int8Options(images=8)


@pytest.fixture
def copy(picture_folder, tmp_path):
    return shutil.copytree(picture_folder, tmp_path / "copy")


def _with_float_file(bundle, model):
    return bundle.extend("export", {FLOAT_FILE: model.SerializeToString()}, {"opset": 20})


def _refusal(bundle, data, capsys):
    """Run the command; return its exit code and its text. The bundle must not have changed."""
    code = main(["calibrate", str(bundle.path), "--data", str(data), "--images", "8"])
    assert Bundle.load(bundle.path) == bundle
    return code, capsys.readouterr().err


def test_a_training_split_without_images_is_refused(bundle, copy, capsys):
    for file in (copy / "train").rglob("*.png"):
        file.unlink()
    code, text = _refusal(bundle, copy, capsys)
    assert code == 4
    assert "no images" in text


def test_images_of_any_size_and_mode_calibrate(bundle, copy):
    rng = np.random.default_rng(0)
    for index, file in enumerate(sorted((copy / "train").rglob("*.png"))):
        frame = cv2.imread(str(file))
        side = int(rng.integers(20, 200))
        frame = cv2.resize(frame, (side, int(side * rng.uniform(0.5, 2))))
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        alpha = np.dstack([frame, np.full(frame.shape[:2], 128, np.uint8)])
        deep = frame.astype(np.uint16) * 257
        cv2.imwrite(str(file), (frame, gray, alpha, deep)[index % 4])
    assert calibrate(bundle.path, data=copy, int8=Int8Options(images=48))["images"] == 48


def test_a_float_file_that_is_quantized_already_is_refused(bundle, picture_folder, capsys):
    calibrate(bundle.path, data=picture_folder, int8=FEW)
    made = Bundle.load(bundle.path)
    for name in ("model.int8.cpu.onnx", "model.int8.onnx"):
        quantized = _with_float_file(made, onnx.load(made.file(name)))
        code, text = _refusal(quantized, picture_folder, capsys)
        assert code == 4
        assert "already quantized" in text
        assert "finedge export" in text


def test_nan_in_a_layer_names_that_layer(bundle, tiny, picture_folder, capsys):
    model = onnx.ModelProto.FromString(tiny.model.SerializeToString())
    layer = [n for n in model.graph.node if n.op_type == "Conv"][3]
    weight = next(t for t in model.graph.initializer if t.name == layer.input[1])
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    code, text = _refusal(_with_float_file(bundle, model), picture_folder, capsys)
    assert code == 1
    assert f"layer '{layer.name}' holds NaN or infinity" in text


def test_values_beyond_float32_name_the_first_layer(tiny):
    model = onnx.ModelProto.FromString(tiny.model.SerializeToString())
    layer = next(n for n in model.graph.node if n.op_type == "Conv")
    weight = next(t for t in model.graph.initializer if t.name == layer.input[1])
    values = numpy_helper.to_array(weight) * np.float32(3e38)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(FinedgeError, match=f"layer '{layer.name}' holds"):
        collect_ranges(model, batches(pictures(4, seed=2)[0]))


def test_a_class_without_images_is_named_in_a_warning(bundle, copy, caplog):
    for file in (copy / "train" / "rising").iterdir():
        file.unlink()
    with caplog.at_level(logging.WARNING):
        assert calibrate(bundle.path, data=copy, int8=FEW)["images"] == 8
    assert "no training images of 1 of 4 classes: rising" in caplog.text


def test_no_batches_are_a_data_error(tiny):
    with pytest.raises(DataError, match="no calibration images"):
        collect_ranges(tiny.model, [])


@pytest.mark.parametrize("words", [["--method", "maximum"], ["--decision-images", "3"]])
def test_an_option_without_meaning_is_a_usage_error(bundle, picture_folder, words):
    data = ["--data", str(picture_folder)]
    assert main(["calibrate", str(bundle.path), *data, *words]) == 2
    assert Bundle.load(bundle.path) == bundle
