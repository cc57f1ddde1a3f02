from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pytest

from finedge.errors import SystemProblem, UsageError
from finedge.runtime.events import clips
from finedge.runtime.events.notice import Counts
from finedge.runtime.events.outbox import Pauses
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.events.ring import FrameRing
from finedge.runtime.events.sinks import EventSinks, open_event_sinks
from finedge.runtime.sinks import Context, Result
from tests.runtime.events.make import make_event, make_notice, wait_until

MakeResult = Callable[..., Result]
FPS = 10.0
CONTEXT = Context("birds", names=("cam0",), fps=(FPS,), live=False, stop=lambda: None)


class Disk(NamedTuple):
    free: int


@contextmanager
def opened(folder: Path, **options: Any) -> Iterator[EventSinks]:
    with open_event_sinks(EventOutputs(clips=folder, **options), CONTEXT) as sinks:
        yield sinks


def show(sinks: EventSinks, make_result: MakeResult, frames: range) -> None:
    """Show frames, each after the one before it was taken: a slow machine would drop some."""
    for frame in frames:
        sinks.see(make_result(frame, seconds=frame / FPS))
        (sink,) = sinks.sinks
        if isinstance(sink, clips.Clips) and sink._recorder is not None:
            wait_until(sink._frames._queue.empty)


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def frame_count(path: Path) -> int:
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


def test_a_visit_leaves_its_crop_and_a_video_that_begins_earlier(
    tmp_path: Path, make_result: MakeResult
) -> None:
    with opened(tmp_path, clip_before_s=1.0) as sinks:
        show(sinks, make_result, range(30))
        sinks.write(make_event(7, seconds=0.5))  # now is 2.9 s: the video begins at 1.4 s
        show(sinks, make_result, range(30, 40))
        sinks.write(make_event(7, "ended"))
        show(sinks, make_result, range(40, 50))
    (crop,), (video,) = tmp_path.rglob("*.jpg"), tmp_path.rglob("*.mp4")
    assert crop.name == "20260528T202647.000Z-0-7-red.jpg"
    assert video.name == "20260528T202647.000Z-0-7.mp4"
    assert crop.read_bytes() == make_notice(7).jpeg
    assert abs(frame_count(video) - (40 - 14)) <= 2
    assert sinks.counts["clips"] == Counts(1, 0, 0)


def test_a_video_of_a_file_has_every_frame(tmp_path: Path, make_result: MakeResult) -> None:
    with opened(tmp_path, clip_before_s=0.0) as sinks:
        sinks.see(make_result(0, seconds=0.0))
        sinks.write(make_event(7, seconds=0.0))
        for frame in range(1, 60):  # faster than they are written
            sinks.see(make_result(frame, seconds=frame / FPS))
    (video,) = tmp_path.rglob("*.mp4")
    assert frame_count(video) in (59, 60)  # the first may be shown before the visit starts


def test_other_sinks_learn_where_the_video_will_be(tmp_path: Path, make_result: MakeResult) -> None:
    outputs = EventOutputs(clips=tmp_path / "clips", clip_before_s=0.0, store=tmp_path / "store.db")
    with open_event_sinks(outputs, CONTEXT) as sinks:
        sinks.see(make_result(0, seconds=0.0))
        sinks.write(make_event(1))
        sinks.see(make_result(1, seconds=0.1))
        sinks.write(make_event(1, "ended"))
    from finedge.runtime.events.command import events

    (record,) = events(tmp_path / "store.db")["events"]
    assert Path(record["clip"]).is_file()


def test_without_videos_there_are_crops_only(tmp_path: Path, make_result: MakeResult) -> None:
    with opened(tmp_path) as sinks:
        show(sinks, make_result, range(3))
        for number in range(3):
            sinks.write(make_event(number))
            sinks.write(make_event(number, "ended", answer=None))
    assert [name.rpartition("-")[2] for name in files(tmp_path)] == ["unknown.jpg"] * 3


def test_a_disk_that_is_full_in_the_middle_leaves_no_half_video(
    tmp_path: Path,
    make_result: MakeResult,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    free = [2**40]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(free[0]))
    with opened(tmp_path, clip_before_s=0.5) as sinks:
        for number in range(3):
            start = number * 30
            show(sinks, make_result, range(start, start + 10))
            sinks.write(make_event(number))
            free[0] = 0 if number < 2 else 2**40
            show(sinks, make_result, range(start + 10, start + 20))
            sinks.write(make_event(number, "ended"))
    names = files(tmp_path)
    assert len([name for name in names if name.endswith(".jpg")]) == 3
    assert [name for name in names if not name.endswith(".jpg")] == [
        "2026-05-28/20260528T202642.000Z-0-2.mp4"
    ]
    (text,) = [r.getMessage() for r in caplog.records if "video is lost" in r.getMessage()]
    assert os.strerror(errno.ENOSPC) in text


def test_a_frame_that_cannot_be_drawn_costs_its_video_and_not_the_stream(
    tmp_path: Path, make_result: MakeResult, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path, clip_before_s=0.0) as sinks:
        show(sinks, make_result, range(2))
        sinks.write(make_event(1))
        sinks.see(make_result(2, seconds=0.2, status="a status of the future"))
        show(sinks, make_result, range(3, 5))
        sinks.write(make_event(1, "ended"))
    assert [Path(name).suffix for name in files(tmp_path)] == [".jpg"]
    assert "a video is lost" in caplog.text


def test_a_crop_waits_for_a_disk_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = clips.write_bytes
    tries: list[Path] = []

    def write(path: Path, data: bytes) -> None:
        tries.append(path)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, data)

    monkeypatch.setattr(clips, "write_bytes", write)
    with opened(tmp_path) as sinks:
        (sink,) = sinks.sinks
        assert isinstance(sink, clips.Clips)
        sink._crops.pauses = Pauses(0.01, 0.01)
        sinks.write(make_event(1, "ended"))
        wait_until(lambda: sink.counts.delivered == 1)
    assert len(tries) == 3
    assert len(files(tmp_path)) == 1


def test_the_oldest_files_are_removed_and_others_stay(
    tmp_path: Path, make_result: MakeResult
) -> None:
    (tmp_path / "2026-05-28").mkdir()
    mine = tmp_path / "2026-05-28" / "holiday.jpg"
    mine.write_bytes(b"x" * 10_000)
    size = len(make_notice(0).jpeg)
    for _ in range(2):  # the second run counts the files of the first
        with opened(tmp_path, clips_max_mib=3.5 * size / 2**20) as sinks:
            for number in range(6):
                sinks.write(make_event(number, "ended", started_at=1.78e9 + 86400 * number))
    assert mine.is_file()
    assert len(files(tmp_path)) == 4
    assert len(list(tmp_path.iterdir())) == 4  # empty days are gone


def test_at_most_four_videos_are_written_at_a_time(tmp_path: Path, make_result: MakeResult) -> None:
    with opened(tmp_path, clip_before_s=0.0) as sinks:
        show(sinks, make_result, range(2))
        for number in range(6):
            sinks.write(make_event(number))
        show(sinks, make_result, range(2, 4))
        for number in range(6):
            sinks.write(make_event(number, "ended"))
    names = files(tmp_path)
    assert len([name for name in names if name.endswith(".mp4")]) == clips.MAX_OPEN
    assert len([name for name in names if name.endswith(".jpg")]) == 6


def test_the_ring_is_bounded_in_time_and_in_bytes(make_result: MakeResult) -> None:
    ring = FrameRing(seconds=1.0)
    for frame in range(30):
        ring.add(make_result(frame, seconds=frame / FPS, roi=[1, 2, 3, 4]))
    kept = list(ring.since(0.0))
    assert [round(r.seconds * FPS) for r in kept if r.seconds] == list(range(19, 30))
    assert all("roi" not in result.record for result in kept)
    small = FrameRing(seconds=100.0, max_bytes=ring.bytes // 2)
    for frame in range(30):
        small.add(make_result(frame, seconds=frame / FPS))
    assert small.bytes <= ring.bytes // 2
    small.add(make_result(0, seconds=0.0))  # the clip starts again
    assert [r.seconds for r in small.since(0.0)] == [0.0]


@pytest.mark.parametrize("options", [{"clip_before_s": 99.0}, {"clips_max_mib": 0.0}])
def test_options_that_no_folder_can_have_are_refused(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        EventOutputs(clips=tmp_path, **options)
    with pytest.raises(UsageError, match="--clips DIR"):
        EventOutputs(clip_before_s=1.0)
    (tmp_path / "file").touch()
    with pytest.raises(SystemProblem), opened(tmp_path / "file"):
        pass
