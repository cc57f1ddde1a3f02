"""Visits of a rendered scene reach the sinks of `finedge classify`."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from finedge.errors import SystemProblem, UsageError
from finedge.image import read_image
from finedge.runtime.events.command import events
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.find.options import FindOptions
from finedge.runtime.sinks import Outputs
from finedge.runtime.stream.command import classify
from finedge.runtime.stream.options import RunLimits

BUNDLE = Path(__file__).resolve().parents[3] / "examples" / "birds.finedge"


def run(source: str, *, frames: int, **outputs: Any) -> None:
    """Classify a rendered scene, of which motion finds the birds."""
    classify(
        BUNDLE,
        (source,),
        variant="int8",
        backend="onnxruntime",
        limits=RunLimits(frames=frames),
        finding=FindOptions(find="motion"),
        **outputs,
    )


def test_a_run_leaves_its_visits_in_a_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = EventOutputs(store=tmp_path / "birds.db", clips=tmp_path / "clips")
    run("test://?birds=3", frames=120, event_outputs=outputs)
    capsys.readouterr()
    records = events(tmp_path / "birds.db")["events"]
    assert records
    assert {record["state"] for record in records} == {"ended"}  # open visits end with the run
    assert len(list((tmp_path / "clips").glob("*/*.jpg"))) == len(records)


@pytest.mark.parametrize("name", ["store", "clips"])
def test_events_need_a_finder(name: str, tmp_path: Path) -> None:
    outputs = EventOutputs(**{name: tmp_path / name})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"--{name} without --find"):
        classify(BUNDLE, ("test://",), event_outputs=outputs)


def test_with_a_finder_the_best_crop_of_each_unsure_visit_is_collected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "unsure"
    outputs = Outputs(collect=folder, collect_below=1.0, events=True)
    run("test://?birds=3&fps=15", frames=120, outputs=outputs)
    printed = map(json.loads, capsys.readouterr().out.splitlines())
    ended = {event["id"]: event for event in printed if event["event"] == "ended"}
    lines = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == ended.keys() != set()  # p is below 1 for each
    for line in lines:
        height, width = read_image(folder / line["image"]).shape[:2]
        assert height == width < 720  # a crop, not the frame
        assert line["image"].startswith(f"{line['top'][0]['label']}/")
        assert line["top"] == ended[line["id"]]["top"]


def test_a_full_disk_ends_the_run_and_the_store_has_every_visit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("finedge.runtime.sinks.collect.write_bytes", full)
    with pytest.raises(SystemProblem, match=r"--collect: .*No space left"):
        run(
            "test://?birds=3&fps=15",
            frames=200,
            outputs=Outputs(collect=tmp_path / "unsure", collect_below=1.0, events=True),
            event_outputs=EventOutputs(store=tmp_path / "birds.db"),
        )
    records = events(tmp_path / "birds.db")["events"]
    assert records
    assert {record["state"] for record in records} == {"ended"}
