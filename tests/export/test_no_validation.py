"""A run without a validation split is compared on the golden frame, and a warning says so."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from finedge.data import DataSet
from finedge.export.reference import parity_frames
from finedge.golden import orientations, synthetic_frame
from finedge.spec import Preprocess


@pytest.fixture
def run_without_val(monkeypatch, tmp_path):
    empty = DataSet(tmp_path, "folders", ("a", "b"), {"train": (), "val": (), "test": ()})
    monkeypatch.setattr("finedge.export.reference.recorded_data", lambda path, root: empty)
    return SimpleNamespace(path=tmp_path, record={"data": {"seed": 0}})


@pytest.mark.parametrize("preprocess", [Preprocess(36, 32), Preprocess(36, 32, frame=(48, 64))])
def test_the_golden_frame_stands_in_turned_and_mirrored(run_without_val, caplog, preprocess):
    with caplog.at_level(logging.WARNING):
        frames, kind = parity_frames(run_without_val, None, preprocess=preprocess)
    assert kind == "golden"
    assert "no validation images" in caplog.text
    assert (frames.dtype, len(frames)) == (np.uint8, 8)
    assert len({f.tobytes() for f in frames}) == 8


def test_a_frame_is_turned_in_eight_ways_itself_first():
    frame = synthetic_frame()
    frames = orientations(frame)
    assert np.array_equal(frames[0], frame)
    assert len({(f.shape, f.tobytes()) for f in frames}) == 8
