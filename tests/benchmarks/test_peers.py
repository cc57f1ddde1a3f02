"""benchmarks/peers.py: the rows of readers that cost nothing, and the peak's loop."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.cpu import int8_peak
from benchmarks.peer_readers import Peer, open_peers
from finedge.bundle import Bundle
from finedge.golden import read_golden
from finedge.runtime.openvino.backend import OpenVinoBackend
from finedge.runtime.ort.int8_products import measured_products

BIRDS = Path(__file__).resolve().parents[2] / "examples" / "birds.finedge"
SCORES = np.zeros((1, 6), np.float32)
BATCHES = [np.zeros((1, 32, 32, 3), np.uint8)] * 2


def lane(name, variant, *, cpu_ms):
    peer = Peer(name, variant, {"library": "1"}, lambda batch: SCORES)
    bursts = [[value] * 3 for value in cpu_ms]
    return peers.Lane(peer, wall_ms=bursts, cpu_ms=bursts)


def test_auto_is_compared_with_the_fastest_reader_that_is_not_ours():
    lanes = [
        lane("finedge auto: onnxruntime int8", "int8", cpu_ms=[1.04, 2.08]),
        lane("finedge openvino int8", "int8", cpu_ms=[0.5, 0.5]),
        lane("openvino int8 f32", "int8", cpu_ms=[1.0, 2.0]),
        lane("onnxruntime int8", "int8", cpu_ms=[1.5, 2.5]),
    ]
    summary = peers.summary(lanes, "cpu")
    assert (summary["fastest"], summary["auto_over_fastest"]) == ("openvino int8 f32", 1.04)
    assert summary["within_5_percent"]


def test_only_int8_has_a_share_of_the_integer_peak():
    macs = {"fp32": 10**9, "int8": 10**9}
    rows = {
        variant: peers.row(
            lane(variant, variant, cpu_ms=[10.0]),
            BATCHES,
            [SCORES] * 2,
            macs=macs,
            peak_gmacs=200.0,
        )
        for variant in ("fp32", "int8")
    }
    assert rows["int8"]["gmacs_per_cpu_second"] == 100
    assert rows["int8"]["share_of_int8_peak"] == 0.5
    assert rows["fp32"]["share_of_int8_peak"] is None


def test_every_installed_reader_answers_alike():
    bundle = Bundle.load(BIRDS)
    frame = np.asarray(read_golden(bundle)["input"], np.uint8)[None]
    opened = list(open_peers(bundle, threads=1, with_torch=False))
    readers = {"onnxruntime"} | ({"openvino"} if OpenVinoBackend().why_not() is None else set())
    assert {peer.name.split()[0] for peer in opened} == {"finedge", *readers}
    # Bare readers run the INT8 file as it is: on a CPU without VNNI their products saturate.
    wrong = measured_products() == "saturating"
    right = [
        peer
        for peer in opened
        if not wrong or peer.variant == "fp32" or peer.name.startswith("finedge")
    ]
    answers = [int(peer.answer(frame).argmax()) for peer in right]
    assert len(set(answers)) == 1


def test_the_loop_of_the_peak_compiles_and_counts():
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    assert int8_peak.int8_peak().gmacs() > 1


def test_without_a_compiler_there_is_a_reason_and_no_peak(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(int8_peak.shutil, "which", lambda name: None)
    assert peers.peak_or_reason() == (None, "needs a C compiler")
