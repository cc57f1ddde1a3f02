"""A run whose data has no validation split is exported all the same: the golden frame is the proof, and that is said."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from finedge.data import DataSet
from finedge.export import command
from finedge.golden import synthetic_frame, turned
from finedge.spec import Preprocess


@pytest.fixture
def run_without_val(monkeypatch, tmp_path):
    empty = DataSet(tmp_path, "folders", ("a", "b"), {"train": (), "val": (), "test": ()})
    monkeypatch.setattr("finedge.train.run.recorded_data", lambda path, root: empty)
    return SimpleNamespace(path=tmp_path, record={"data": {"seed": 0}})


@pytest.mark.parametrize("how", [Preprocess(36, 32), Preprocess(36, 32, frame=(48, 64))])
def test_the_golden_frame_stands_in_turned_and_mirrored(run_without_val, caplog, how):
    with caplog.at_level(logging.WARNING):
        frames, of = command._parity_frames(run_without_val, None, how=how)
    assert of == "golden"
    assert "no validation images" in caplog.text
    assert (frames.dtype, len(frames)) == (np.uint8, 8)
    assert len({f.tobytes() for f in frames}) == 8


def test_a_frame_is_turned_in_eight_ways_itself_first():
    frame = synthetic_frame()
    found = turned(frame)
    assert np.array_equal(found[0], frame)
    assert len({(f.shape, f.tobytes()) for f in found}) == 8
