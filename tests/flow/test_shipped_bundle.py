"""The bundle in examples/ must open, verify and recognise its birds in every later version."""

from __future__ import annotations

from pathlib import Path

import pytest

from finedge.bundle import Bundle
from finedge.runtime.classifier import Classifier
from finedge.runtime.verify.command import verify
from finedge.synthetic.scene import STAY, moving_scene, visitor

pytestmark = pytest.mark.int8

PATH = Path(__file__).resolve().parents[2] / "examples" / "birds.finedge"
MEGABYTES = 8  # three float or INT8 forms of a small network, and the golden frame


def test_it_opens_and_is_small():
    bundle = Bundle.load(PATH)
    assert bundle.variants() == ("fp32", "fp16", "int8")
    assert sum(f.stat().st_size for f in PATH.iterdir()) < MEGABYTES * 2**20
    assert "/tmp" not in (PATH / "manifest.json").read_text()


def test_its_golden_frame_replays_here():
    assert verify(PATH)["pass"]


def test_it_recognises_most_birds_of_the_moving_scene():
    frames = range(45, 45 + 12 * 90, 90)  # the middle of each of twelve visits
    with Classifier.open(PATH, variant="int8") as classifier:
        answers = [classifier([moving_scene(i)])[0].top[0].label for i in frames]
    truth = [visitor(i // STAY, seed=0).name for i in frames]
    right = sum(a == t for a, t in zip(answers, truth, strict=True))
    assert right >= 6, f"{right} of 12; chance is 1"
