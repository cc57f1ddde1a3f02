"""Where `auto` runs OpenVINO: installed, verified and faster, by numbers that the test gives."""

from __future__ import annotations

import pytest

from finedge.errors import BundleError
from finedge.runtime.backend import why_not
from finedge.runtime.classifier import Classifier
from finedge.runtime.openvino.backend import OpenVinoBackend
from finedge.runtime.ort.int8_products import OVERRIDE
from finedge.runtime.variant import backend_choice
from finedge.runtime.variant.timing import Timing

FASTER, SLOWER = {"onnxruntime": 2.0, "openvino": 1.0}, {"onnxruntime": 1.0, "openvino": 2.0}


class BackendTimer:
    """In the place of the real timer: gives `ms` by backend, and counts the measurements."""

    def __init__(self) -> None:
        self.ms, self.runs = FASTER, 0

    def __call__(self, queries):
        for query in queries.values():
            query()
        self.runs += 1
        return Timing({name: (self.ms[name],) * 8 for name in queries})


@pytest.fixture
def backends(timer, monkeypatch):
    """OpenVINO counts as installed again, and its times are those of the timer."""
    reason = why_not("openvino")
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setenv(OVERRIDE, "")
    monkeypatch.setattr(backend_choice, "int8_products", lambda: "exact")
    monkeypatch.setattr(backend_choice, "is_installed", lambda name: True)
    given = BackendTimer()
    monkeypatch.setattr(backend_choice, "_timer", lambda request: given)
    return given


def auto(bundle, **options):
    """Return the backend that runs, and the choice."""
    with Classifier.open(bundle, threads=1, **options) as classifier:
        return classifier.session.info.backend, classifier.choice


def test_it_runs_where_it_is_faster_and_that_is_remembered(backends, tiny_bundle):
    assert auto(tiny_bundle)[0] == "openvino"
    backend, choice = auto(tiny_bundle)
    assert (backend, choice.basis, backends.runs) == ("openvino", "remembered", 1)
    assert "openvino is 2.00x as fast as onnxruntime" in choice.reason


def test_where_it_is_slower_onnxruntime_runs_and_that_is_remembered(backends, tiny_bundle):
    backends.ms = SLOWER
    assert [auto(tiny_bundle)[0] for _ in range(2)] == ["onnxruntime"] * 2
    assert backends.runs == 1


def test_scores_unlike_the_golden_ones_rule_it_out(backends, tiny_bundle, monkeypatch):
    def open_other(self, bundle, *, variant):
        session = OpenVinoBackend.open_file(self, bundle, f"model.{variant}.onnx")
        run = session._run
        session._run = lambda batch: {name: -values for name, values in run(batch).items()}
        return session

    monkeypatch.setattr(OpenVinoBackend, "open", open_other)
    assert auto(tiny_bundle)[0] == "onnxruntime"
    assert backends.runs == 0


def test_a_failure_of_it_is_not_in_the_way(backends, tiny_bundle, monkeypatch):
    def fails(self, bundle, *, variant):
        raise BundleError("OpenVINO refuses it")

    monkeypatch.setattr(OpenVinoBackend, "open", fails)
    assert auto(tiny_bundle)[0] == "onnxruntime"


def test_where_int8_saturates_it_is_not_even_timed(backends, tiny_bundle, monkeypatch):
    monkeypatch.setattr(backend_choice, "int8_products", lambda: "saturating")
    assert auto(tiny_bundle)[0] == "onnxruntime"
    assert backends.runs == 0


@pytest.mark.parametrize("options", [{"backend": "onnxruntime"}, {"variant": "int8"}])
def test_what_is_named_runs(backends, tiny_bundle, options):
    assert auto(tiny_bundle, **options)[0] == "onnxruntime"
    assert backends.runs == 0
