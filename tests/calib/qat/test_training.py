"""`finedge calibrate --qat RUN`: trained with modelopt's fake quantizers, written as INT8 files."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from finedge.bundle import Bundle
from finedge.calib.command import calibrate
from finedge.calib.options import Int8Options, QatOptions
from finedge.calib.qat.training import require_float, require_run_of
from finedge.errors import BundleError, UsageError
from finedge.train.recipe import Recipe
from finedge.train.run import Run
from tests.calib.conftest import LABELS, SPEC, logits

INT8 = Int8Options(images=32)


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """The tiny network as a run; `load_run` builds registered models only, so it is replaced."""
    from tests.calib import conftest

    class Model(conftest.Tiny):
        def loss(self, outputs, target, *, label_smoothing=0.0):
            return conftest.F.cross_entropy(
                outputs["logits"], target, label_smoothing=label_smoothing
            )

    recipe = {**vars(Recipe()), "size": 48, "resize": 48, "batch_size": 16, "epochs": 1}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint.safetensors").write_bytes(b"weights")
    spec = replace(SPEC, labels=tuple(sorted(LABELS)))
    made = Run(tmp_path / "run", spec, Model().eval(), {"recipe": recipe})
    monkeypatch.setattr("finedge.calib.qat.fine_tuned.load_run", lambda path: made)
    return made


@pytest.fixture
def same_model(monkeypatch):
    monkeypatch.setattr("finedge.calib.qat.fine_tuned.require_run_of", lambda bundle, run: None)


def test_both_files_come_from_the_trained_weights(bundle, picture_folder, run, same_model, tiny):
    plain = calibrate(bundle.path, data=picture_folder, int8=INT8)
    before = Bundle.load(bundle.path)
    files = {n: before.file(n).read_bytes() for n in plain["files"]}
    result = calibrate(
        bundle.path,
        data=picture_folder,
        int8=INT8,
        qat=QatOptions(qat=run.path, qat_epochs=1, qat_lr=1e-3),
    )
    after = Bundle.load(bundle.path)
    record = after.provenance["calibrate"]["qat"]
    assert after.files["model.fp32.onnx"] == before.files["model.fp32.onnx"]
    assert all(after.file(n).read_bytes() != content for n, content in files.items())
    assert result["qat"] == json.loads(json.dumps(record))
    assert (record["epochs"], len(record["losses"])) == (1, 1)
    assert record["quantizers"]["weights"] == plain["int8_layers"]["model.int8.onnx"]
    exact = logits(tiny.model, tiny.frames)
    trained = logits(onnx.load(after.file("model.int8.cpu.onnx")), tiny.frames)
    assert np.mean(trained.argmax(1) == exact.argmax(1)) > 0.9


def test_the_run_of_another_bundle_is_refused_and_nothing_written(bundle, picture_folder, run):
    before = bundle.path.joinpath("manifest.json").read_bytes()
    with pytest.raises(UsageError, match="is not the run of"):
        calibrate(bundle.path, data=picture_folder, int8=INT8, qat=QatOptions(qat=run.path))
    assert bundle.path.joinpath("manifest.json").read_bytes() == before


def test_a_run_with_other_labels_is_refused(bundle, run):
    other = replace(run, spec=replace(run.spec, labels=("a", "b", "c", "d")))
    with pytest.raises(UsageError, match="other labels"):
        require_run_of(bundle, other)


def test_a_model_that_is_quantized_already_is_refused():
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[2] x) => (int8[2] y) <float s = {1.0}, int8 z = {0}> { y = QuantizeLinear(x, s, z) }"""
    with pytest.raises(BundleError, match="quantized already"):
        require_float(onnx.parser.parse_model(text), name="model.fp32.onnx")


@pytest.mark.parametrize("options", [{"qat_epochs": 0}, {"qat_lr": 0.0}, {"qat_lr": float("nan")}])
def test_epochs_and_learning_rate_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match="--qat-"):
        QatOptions(**options)
