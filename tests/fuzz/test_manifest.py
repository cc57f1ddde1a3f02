"""manifest.json of anybody: a bundle, or a BundleError; and what the stages read of its records."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from finedge.bundle import MANIFEST, Bundle, Tap, View
from finedge.errors import BundleError
from finedge.spec import Input, Output, Preprocess, Spec
from tests.fuzz.mutate import SEEDS, find, json_bytes, nearly

SPEC = Spec(
    "plain",
    "resnet18",
    ("crow", "finch"),
    Preprocess(36, 32, frame=(48, 64)),
    Input(48, 64),
    (Output(), Output("part", role="local")),
)
PROVENANCE: dict[str, Any] = {
    "train": {
        "data": {"root": "data", "layout": "folders", "seed": 1, "cut": None},
        "run": "runs/a",
        "recipe": {"epochs": 3},
    },
    "export": {"opset": 20},
    "calibrate": {
        "confidence": {"fp32": {"temperature": 1.5, "reject": 0.25, "n": 100}, "int8": None},
        "placements": {"model.int8.onnx": {"int8": ["conv"], "stays_float": {"a": "why"}}},
        "ranges": {"a": [0.0, 1.0]},
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("fuzz") / "b.finedge"
    files: dict[str, Path | bytes] = {"model.fp32.onnx": b"a", "golden.npz": b"b"}
    views = (View("looks", "cam", "layer1"),)
    return Bundle.create(
        path, SPEC, files=files, taps=(Tap("layer1", "relu"),), views=views, provenance=PROVENANCE
    )


def document(made: Bundle) -> dict[str, Any]:
    """Return the whole manifest, whatever the tests before wrote."""
    content: dict[str, Any] = json.loads(made._manifest())
    return content


@pytest.mark.parametrize("examples", [300, pytest.param(8_000, marks=pytest.mark.slow)])
def test_no_manifest_raises_an_untyped_error(made: Bundle, examples: int) -> None:
    content = document(made)

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(SEEDS)
    def check(seed: int) -> None:
        (made.path / MANIFEST).write_bytes(nearly(content, seed))
        try:
            bundle = Bundle.load(made.path)
        except BundleError:
            return
        assert set(bundle.files) <= {"model.fp32.onnx", "golden.npz"}, "a file that is not there"
        assert len(set(bundle.spec.labels)) == len(bundle.spec.labels) > 0
        look(bundle)

    check()


def look(bundle: Bundle) -> None:
    """Ask for everything that a stage asks for."""
    for ask in (
        lambda: bundle.training.data.root,
        lambda: bundle.training.run,
        lambda: bundle.calibration.placements,
        *(lambda v=v: bundle.confidence(v) for v in ("fp32", "fp16", "int8")),
        bundle.spec.preprocess.describe,
        bundle.digest,
        bundle.variants,
    ):
        with suppress(BundleError):
            ask()


NEWER: dict[str, Any] = {
    "the manifest": (),
    "the spec": ("spec",),
    "the preprocessing": ("spec", "preprocess"),
    "the input": ("spec", "input"),
    "an output": ("spec", "outputs", 0),
    "a tap": ("taps", 0),
    "a view": ("views", 0),
}


@pytest.mark.parametrize("place", NEWER.values(), ids=NEWER)
def test_a_field_of_a_newer_version_says_update(made: Bundle, place: tuple[Any, ...]) -> None:
    content = document(made)
    find(content, place)["later"] = 1
    (made.path / MANIFEST).write_bytes(json_bytes(content))
    with pytest.raises(BundleError, match="newer finedge") as error:
        Bundle.load(made.path)
    assert "update finedge" in error.value.fix
    assert "later" in error.value.what


@pytest.mark.parametrize("stage", ["train", "calibrate", "later"])
def test_a_record_may_say_more(made: Bundle, stage: str) -> None:
    content = document(made)
    content["provenance"].setdefault(stage, {})["later"] = {"a": [1]}
    (made.path / MANIFEST).write_bytes(json_bytes(content))
    loaded = Bundle.load(made.path)
    assert loaded.provenance[stage]["later"] == {"a": [1]}
    assert loaded.training.data.seed == 1
