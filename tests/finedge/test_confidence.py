import pytest

from finedge.bundle import Bundle
from finedge.confidence import KEY, STAGE, Confidence
from finedge.errors import BundleError
from finedge.spec import Input, Preprocess, Spec


@pytest.fixture
def bundle(tmp_path):
    spec = Spec("m", "b", ("a", "b"), Preprocess(8, 8), Input(8, 8))
    return Bundle.create(tmp_path / "b.finedge", spec, files={}, provenance={})


def fitted(bundle, record):
    bundle.extend(STAGE, {}, {KEY: record})
    return Bundle.load(bundle.path)


def test_each_variant_has_its_own(bundle):
    loaded = fitted(
        bundle,
        {
            "fp32": {"temperature": 1.5, "reject": 0.4, "n": 100},
            "int8": {"temperature": 2, "reject": 0},
        },
    )
    assert loaded.confidence("fp32") == Confidence(1.5, 0.4)
    assert loaded.confidence("int8") == Confidence(2.0, 0.0)
    assert loaded.confidence("fp16") is None


def test_a_bundle_from_before_has_none(bundle):
    assert bundle.confidence("fp32") is None
    assert fitted(bundle, {}).confidence("fp32") is None


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"temperature": "hot", "reject": 0.5},
        {"temperature": 0, "reject": 0.5},
        {"temperature": 1, "reject": 1.5},
        [1, 2],
    ],
)
def test_a_damaged_record_is_a_bundle_error(bundle, record):
    with pytest.raises(BundleError, match="finedge calibrate"):
        fitted(bundle, {"fp32": record}).confidence("fp32")


@pytest.mark.parametrize("records", [None, [1, 2], "hot"])
def test_damaged_records_are_a_bundle_error(bundle, records):
    with pytest.raises(BundleError, match="finedge calibrate"):
        fitted(bundle, records).confidence("fp32")
