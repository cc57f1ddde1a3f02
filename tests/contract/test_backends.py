"""What every backend of the table must do; a new one is tested because it is in the table."""

from __future__ import annotations

import numpy as np
import pytest

from finedge.errors import BackendMissing, BundleError, UsageError
from finedge.runtime.backend import (
    AUTO,
    BACKENDS,
    SessionOptions,
    backend_names,
    get_backend,
    load_backend,
    usual_variants,
)

# What multiplies in INT8 is also run on an emulated CPU without VNNI; the rest is alike there.
VARIANTS = ["fp32", pytest.param("int8", marks=pytest.mark.int8)]


@pytest.fixture(params=BACKENDS)
def backend(request):
    backend = load_backend(request.param, options=SessionOptions(threads=1))
    reason = backend.why_not()
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return backend


@pytest.fixture
def batch():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", backend_names())
def test_says_why_it_cannot_run_or_is_returned(name):
    backend = load_backend(name)
    reason = backend.why_not()
    assert backend.name == name
    if reason is None:
        assert get_backend(name).name == name
    else:
        with pytest.raises(BackendMissing, match="cannot run here") as failure:
            get_backend(name)
        assert reason in str(failure.value)


def test_auto_is_one_of_the_real_backends():
    assert get_backend("auto").name in AUTO
    assert "fake" not in AUTO


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'onnxruntime'"):
        get_backend("onnx-runtime")


def test_its_usual_variants_are_variants_of_the_bundle(backend, tiny_bundle):
    usual = usual_variants(backend, tiny_bundle)
    assert usual
    assert set(usual) <= set(tiny_bundle.variants())


@pytest.mark.parametrize("variant", VARIANTS)
def test_info_names_what_runs(backend, tiny_bundle, variant):
    info = backend.open(tiny_bundle, variant=variant).info
    assert info.backend == backend.name
    assert (info.source or info.file) in tiny_bundle.files
    assert info.precision.startswith(variant)
    assert info.device
    assert info.versions


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [1, 3])
def test_returns_float32_scores_of_every_output_of_the_spec(
    backend, tiny_bundle, batch, variant, size
):
    outputs = backend.open(tiny_bundle, variant=variant)(batch[:size])
    for output in tiny_bundle.spec.outputs:
        assert outputs[output.name].dtype == np.float32
        assert outputs[output.name].shape == (size, len(tiny_bundle.spec.labels))


def test_a_frame_is_answered_alike_alone_and_in_a_batch_and_again(backend, tiny_bundle, batch):
    session = backend.open(tiny_bundle, variant="fp32")
    together = session(batch)["logits"]
    np.testing.assert_allclose(
        np.concatenate([session(batch[i : i + 1])["logits"] for i in range(3)]), together, atol=1e-4
    )
    np.testing.assert_array_equal(session(batch)["logits"], together)
    assert not np.allclose(together[0], together[1], atol=1e-4), (
        "different frames, different scores"
    )


def test_a_view_that_is_not_contiguous_is_answered_as_its_copy(backend, tiny_bundle, batch):
    session = backend.open(tiny_bundle, variant="fp32")
    flipped = batch[:, :, ::-1]
    np.testing.assert_array_equal(
        session(flipped)["logits"], session(np.ascontiguousarray(flipped))["logits"]
    )


@pytest.mark.int8
def test_the_batch_is_left_as_it_was(backend, tiny_bundle, batch):
    before = batch.copy()
    backend.open(tiny_bundle, variant="int8")(batch)
    np.testing.assert_array_equal(batch, before)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((1, 3, 32, 32), np.uint8),
        np.zeros((1, 16, 16, 3), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
    ],
    ids=["float", "one frame", "channels first", "another size", "empty"],
)
def test_a_batch_of_another_kind_is_refused(backend, tiny_bundle, wrong):
    with pytest.raises(UsageError, match="uint8"):
        backend.open(tiny_bundle, variant="fp32")(wrong)


def test_an_unknown_variant_is_a_usage_error(backend, tiny_bundle):
    with pytest.raises(UsageError, match="int4"):
        backend.open(tiny_bundle, variant="int4")


def test_a_missing_variant_says_how_to_make_it(backend, make_bundle):
    with pytest.raises(BundleError, match="finedge calibrate"):
        backend.open(make_bundle(files=("model.fp32.onnx",)), variant="int8")


def test_a_closed_session_refuses_and_closing_twice_is_harmless(backend, tiny_bundle, batch):
    session = backend.open(tiny_bundle, variant="fp32")
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session(batch)
