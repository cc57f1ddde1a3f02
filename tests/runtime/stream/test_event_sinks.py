"""Visits of a rendered scene reach the sinks of `finedge classify`."""

from __future__ import annotations

from pathlib import Path

import pytest

from finedge.errors import UsageError
from finedge.runtime.events.command import events
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.find.options import FindOptions
from finedge.runtime.stream.command import RunLimits, classify

BUNDLE = Path(__file__).resolve().parents[3] / "examples" / "birds.finedge"


def test_a_run_leaves_its_visits_in_a_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classify(
        BUNDLE,
        ("test://?birds=3",),
        variant="int8",
        backend="onnxruntime",
        limits=RunLimits(frames=120),
        finding=FindOptions(find="motion"),
        event_outputs=EventOutputs(store=tmp_path / "birds.db", clips=tmp_path / "clips"),
    )
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
