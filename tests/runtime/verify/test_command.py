"""`finedge verify`: a good bundle passes; of a broken one the first diverging stage is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from finedge.bundle import GOLDEN, Bundle
from finedge.errors import DataError, GateError
from finedge.golden import pack, read_golden
from finedge.runtime.agreement import INT8_LIMIT, compared, golden_stages
from finedge.runtime.backend import BACKENDS, NoTaps
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.ort.int8_products import OVERRIDE
from finedge.runtime.verify.command import verify

pytestmark = pytest.mark.int8

ORT = "finedge.runtime.ort.backend:OnnxRuntimeBackend"
SCALED = "(scaled for 16-bit sums)"
FAKE = "finedge.runtime.fake:FakeBackend"


def names(result, *, passed):
    """The stages of every CPU: where products saturate, the cut weights are compared as well."""
    return [s["name"] for s in result["stages"] if s["pass"] is passed and SCALED not in s["name"]]


def with_weight(bundle, file, name, change):
    """The bundle with one initializer of a file changed."""
    model = onnx.load(bundle.file(file))
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))
    return bundle.extend("test", {file: model.SerializeToString()}, {})


def with_golden(bundle, key, change):
    """The bundle with one golden array changed."""
    golden = read_golden(bundle)
    return bundle.extend("test", {GOLDEN: pack({**golden, key: change(golden[key])})}, {})


def test_a_good_bundle_passes_and_lists_what_was_not_checked(tiny_bundle):
    result = verify(tiny_bundle.path)
    logits = [
        f"logits {f}/logits" for f in ("model.fp32.onnx", "model.int8.cpu.onnx", "model.int8.onnx")
    ]
    assert result["pass"] is True
    assert names(result, passed=True) == ["preprocess", "tap/features", *logits]
    assert names(result, passed=None) == ["preprocess run", "taps run", "logits run", "top-1"]
    assert all("--" in s["skipped"] for s in result["stages"] if s["pass"] is None)
    assert result["stages"][0]["max_abs"] == 0


def test_real_images_add_top1(tiny_bundle, tiny_data):
    stage = verify(tiny_bundle.path, data=tiny_data, images=8)["stages"][-1]
    assert (stage["name"], stage["agreement"], stage["n"], stage["pass"]) == (
        "top-1 int8",
        1.0,
        8,
        True,
    )


def test_a_cpu_without_vnni_passes_too(tiny_bundle, tiny_data, monkeypatch):
    monkeypatch.setenv(OVERRIDE, "saturating")
    stages = {s["name"]: s for s in verify(tiny_bundle.path, data=tiny_data)["stages"]}
    assert stages[f"logits model.int8.cpu.onnx/logits {SCALED}"]["max_abs"] > 0, (
        "these are other weights"
    )
    assert stages["logits model.int8.cpu.onnx/logits"]["max_abs"] == 0, "the file as it is written"
    assert stages["logits model.int8.onnx/logits"]["max_abs"] == 0
    assert stages["top-1 int8"]["pass"] is True


@pytest.mark.parametrize("products", ["exact", "saturating"])
def test_a_damage_that_cut_weights_would_hide_is_found_on_every_cpu(
    tiny_bundle, monkeypatch, products
):
    if products == "saturating":
        monkeypatch.setenv(OVERRIDE, products)
    slight = with_weight(tiny_bundle, "model.int8.cpu.onnx", "bias_quantized", lambda b: b + b // 5)
    with pytest.raises(GateError, match=r"stage 'logits model\.int8\.cpu\.onnx/logits' diverges"):
        verify(slight.path)


def broken_pixels(bundle: Bundle) -> Bundle:
    return with_golden(
        bundle,
        "input",
        lambda pixels: np.where(np.arange(32)[:, None, None] == 7, pixels ^ 1, pixels),
    )


def broken_preprocessing(bundle: Bundle) -> Bundle:
    spec = replace(bundle.spec, preprocess=replace(bundle.spec.preprocess, method="cv2-linear"))
    return Bundle.create(
        bundle.path,
        spec,
        files={n: (bundle.path / n).read_bytes() for n in bundle.files},
        taps=bundle.taps,
        provenance=bundle.provenance,
    )


def broken_kernel(bundle: Bundle) -> Bundle:
    return with_weight(bundle, "model.fp32.onnx", "kernels", lambda k: k * np.float32(1.01))


def broken_last_layer(bundle: Bundle) -> Bundle:
    return with_weight(bundle, "model.fp32.onnx", "bias", lambda b: b + np.float32(0.01))


def broken_nan(bundle: Bundle) -> Bundle:
    return with_weight(bundle, "model.fp32.onnx", "bias", lambda b: b * np.float32(np.nan))


def broken_int8(bundle: Bundle) -> Bundle:
    return with_weight(bundle, "model.int8.cpu.onnx", "weights_quantized", lambda w: w // 2)


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        (broken_pixels, "preprocess"),
        (broken_preprocessing, "preprocess"),
        (broken_kernel, "tap/features"),
        (broken_last_layer, "logits model.fp32.onnx/logits"),
        (broken_nan, "logits model.fp32.onnx/logits"),
        (broken_int8, "logits model.int8.cpu.onnx/logits"),
    ],
    ids=lambda v: v.__name__ if callable(v) else None,
)
def test_the_first_diverging_stage_is_named(tiny_bundle, damage, first):
    with pytest.raises(GateError, match=f"stage '{first}' diverges") as failure:
        verify(damage(tiny_bundle).path)
    assert failure.value.exit_code == 5
    assert failure.value.result["pass"] is False
    assert names(failure.value.result, passed=False)[0] == first


def test_an_int8_file_that_names_other_classes_fails_on_top1(tiny_bundle, tiny_data):
    rolled = with_weight(
        tiny_bundle, "model.int8.cpu.onnx", "weights_quantized", lambda w: np.roll(w, 1, axis=0)
    )
    with pytest.raises(GateError) as failure:
        verify(rolled.path, data=tiny_data)
    assert names(failure.value.result, passed=False) == [
        "logits model.int8.cpu.onnx/logits",
        "top-1 int8",
    ]


def test_a_run_is_compared_through_the_torch_backend(tiny_bundle, tiny_data, monkeypatch):
    monkeypatch.setitem(BACKENDS, "torch", ORT)  # it agrees with itself
    result = verify(tiny_bundle.path, data=tiny_data, run=tiny_data, images=4)
    assert {"tap/features run", "logits run/logits"} <= set(names(result, passed=True))


def test_a_run_that_differs_is_found(tiny_bundle, tiny_data, monkeypatch):
    monkeypatch.setitem(BACKENDS, "torch", FAKE)
    with pytest.raises(GateError, match="stage 'logits run/logits' diverges"):
        verify(tiny_bundle.path, data=tiny_data, run=tiny_data, images=4)


def test_a_run_without_images_is_not_compared(tiny_bundle, tmp_path):
    result = verify(tiny_bundle.path, run=tmp_path)
    assert [s["skipped"] for s in result["stages"] if s["name"] == "logits run"] == [
        "no --data given: the run is compared on real images"
    ]


def test_a_backend_without_feature_maps_skips_the_taps_with_the_reason(tiny_bundle):
    with pytest.raises(GateError) as failure:  # a fake's logits are not the bundle's
        verify(tiny_bundle.path, backend="fake")
    assert "shows no feature maps" in next(
        s["skipped"] for s in failure.value.result["stages"] if s["name"] == "taps"
    )


def test_without_an_engine_with_taps_the_reason_says_how_to_build_one(tiny_bundle, monkeypatch):
    def no_taps(self, bundle):
        raise NoTaps("no engine here shows feature maps", fix="finedge build --debug-taps")

    monkeypatch.setattr(OnnxRuntimeBackend, "open_with_taps", no_taps)
    taps = next(s for s in verify(tiny_bundle.path)["stages"] if s["name"] == "taps")
    assert (taps["pass"], taps["skipped"]) == (
        None,
        "no engine here shows feature maps: finedge build --debug-taps",
    )


@pytest.mark.parametrize("source", ["model.fp32.onnx", ""])
def test_an_engine_is_compared_with_the_file_it_was_built_from(tiny_bundle, source):
    session = OnnxRuntimeBackend().open(tiny_bundle, variant="fp32")
    session.info = replace(session.info, file="x.engine", source=source)
    (stage,) = golden_stages(session, tiny_bundle, golden=read_golden(tiny_bundle), variant="fp32")
    assert (stage["name"], stage["pass"]) == ("logits x.engine/logits", True if source else None)


def test_images_that_are_not_there_are_a_data_error(tiny_bundle, tmp_path):
    with pytest.raises(DataError, match="not a folder"):
        verify(tiny_bundle.path, data=tmp_path / "missing")


def test_a_comparison_fails_on_shape_nan_and_limit_at_any_scale():
    ones = np.ones((2, 3), np.float32)
    assert compared("x", ones + 5e-5, ones, limit=1e-4)["pass"] is True
    assert compared("x", ones + 5e-4, ones, limit=1e-4)["pass"] is False
    assert compared("x", 100 * ones + 5e-3, 100 * ones, limit=1e-4)["pass"] is True
    assert (
        compared("x", ones[:1], ones, limit=INT8_LIMIT)["note"] == "shape [1, 3], expected [2, 3]"
    )
    nan = compared("x", ones * np.nan, ones, limit=1.0)
    assert (nan["pass"], nan["max_abs"], nan["note"]) == (False, None, "not finite")
