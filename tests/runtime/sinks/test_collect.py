from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from finedge.data import open_dataset
from finedge.errors import SystemProblem, UsageError
from finedge.files import write_bytes
from finedge.image import read_image
from finedge.runtime.events.event import Name
from finedge.runtime.sinks import Context, Outputs, Result
from finedge.runtime.sinks.collect import (
    EVERY_S,
    INDEX,
    MIB,
    CollectOptions,
    FrameCollector,
    UnsureFilter,
    UnsureVisits,
    open_collect,
)
from finedge.runtime.sinks.queued import SIZE
from finedge.sanitize import file_name
from tests.runtime.events.make import RED, make_event

MakeResult = Callable[..., Result]


CONTEXT = Context("tiny", names=("cam0", "cam1"), fps=(25.0, 25.0), live=True, stop=lambda: None)


def collecting(folder: Path, **limits: float) -> UnsureFilter:
    options = CollectOptions(folder, **limits)
    return UnsureFilter(options.below, FrameCollector(options))


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.jpg"))


def index(folder: Path) -> list[str]:
    return sorted(json.loads(line)["image"] for line in (folder / INDEX).read_text().splitlines())


def test_only_frames_the_model_was_unsure_of_are_kept_with_their_record(
    make_result: MakeResult, tmp_path: Path
) -> None:
    collector = collecting(tmp_path, below=0.5)
    for frame, p, unknown in (
        (0, 0.9, False),
        (100, 0.3, False),
        (200, 0.8, True),
        (300, 0.5, False),
    ):
        collector.write(make_result(frame, p=p, unknown=unknown))
    collector.write(make_result(p=None))
    collector.close()
    assert names(tmp_path) == [
        "red/20260102T030404.000Z-000100.jpg",
        "red/20260102T030408.000Z-000200.jpg",
    ]
    assert index(tmp_path) == names(tmp_path)
    first = json.loads((tmp_path / INDEX).read_text().splitlines()[0])
    assert {k: first[k] for k in ("frame", "source", "variant")} == {
        "frame": 100,
        "source": "cam0",
        "variant": "fp32",
    }


def test_of_visits_those_that_end_unsure_or_unknown_are_kept(tmp_path: Path) -> None:
    options = CollectOptions(tmp_path, below=0.5)
    collector = UnsureVisits(options.below, FrameCollector(options))
    doubtful = Name("blue", 0.4, 1)
    collector.write(make_event(1, "ended"))  # sure: red, 0.9
    collector.write(make_event(2, "started", answer=None))
    collector.write(make_event(2, "ended", answer=None))
    collector.write(make_event(3, "ended", answer=doubtful, top=(doubtful, RED)))
    collector.close()
    assert [name.partition("/")[0] for name in names(tmp_path)] == ["blue", "red"]
    assert [name[-10:] for name in names(tmp_path)] == ["000003.jpg", "000002.jpg"]  # the tracks
    assert index(tmp_path) == names(tmp_path)
    kept = read_image(tmp_path / names(tmp_path)[1])
    assert kept.shape == make_event(2).crop.shape


def test_the_models_own_probability_counts_and_not_the_smoothed_one(
    make_result: MakeResult, tmp_path: Path
) -> None:
    collector = collecting(tmp_path)
    collector.write(make_result(0, p=0.3, top=[{"index": 0, "label": "blue", "p": 0.99}]))
    assert names(tmp_path) == ["blue/20260102T030400.000Z-000000.jpg"]


def test_the_folder_is_a_data_set_that_training_reads(
    make_result: MakeResult, tmp_path: Path
) -> None:
    collector = collecting(tmp_path)
    for i in range(20):
        collector.write(make_result(100 * i, p=0.1, label=("robin", "wren")[i % 2]))
    collector.close()
    data = open_dataset(tmp_path)
    assert data.labels == ("robin", "wren")
    assert sum(len(items) for items in data.splits.values()) == 20


def test_a_kept_frame_is_the_frame(make_result: MakeResult, tmp_path: Path) -> None:
    result = make_result(0, p=0.1)
    smooth = cv2.resize(np.asarray(result.image), (640, 480))
    collecting(tmp_path).write(replace(result, image=smooth))
    picture = read_image(next(tmp_path.rglob("*.jpg")))
    assert np.abs(picture.astype(int) - smooth).mean() < 3  # JPEG


def test_neighbours_of_a_kept_frame_are_left_out_per_source(
    make_result: MakeResult, tmp_path: Path
) -> None:
    collector = collecting(tmp_path)
    for frame in range(100):  # four seconds
        for stream in (0, 1):
            collector.write(make_result(frame, p=0.1, stream=stream))
    assert len(names(tmp_path)) == 2 * round(4 / EVERY_S)


def test_the_size_is_capped_and_the_oldest_go_first(
    make_result: MakeResult, tmp_path: Path
) -> None:
    collector = collecting(tmp_path, max_mib=0.1)
    for i in range(300):
        collector.write(make_result(30 * i, p=0.1, size=(64, 64), label=("a", "b", "c")[i % 3]))
        assert sum(p.stat().st_size for p in tmp_path.rglob("*.jpg")) <= 0.1 * MIB
        # The index stays in proportion while it runs.
        assert len(index(tmp_path)) <= 2 * len(names(tmp_path)) + 102
    collector.close()
    frames = sorted(int(n.rsplit("-", 1)[1].removesuffix(".jpg")) for n in names(tmp_path))
    assert frames == [30 * i for i in range(300 - len(frames), 300)]
    assert index(tmp_path) == names(tmp_path)


def test_frames_of_an_earlier_run_count_and_its_cut_off_line_is_dropped(
    make_result: MakeResult, tmp_path: Path
) -> None:
    first = collecting(tmp_path, max_mib=0.05)
    first.write(make_result(0, p=0.1, size=(64, 64)))
    first.close()
    with (tmp_path / INDEX).open("a") as file:
        file.write('{"image": "red/cut o')
    again = collecting(tmp_path, max_mib=0.05)
    for i in range(1, 30):
        again.write(make_result(30 * i, p=0.1, size=(64, 64)))
    again.close()
    assert "red/20260102T030400.000Z-000000.jpg" not in names(tmp_path)
    assert sum(p.stat().st_size for p in tmp_path.rglob("*.jpg")) <= 0.05 * MIB
    assert index(tmp_path) == names(tmp_path)


def test_only_own_frames_are_removed_and_at_once_for_a_smaller_size(
    make_result: MakeResult, tmp_path: Path
) -> None:
    foreign = [
        tmp_path / "red" / name
        for name in ("0001.jpg", "IMG_2.jpg", "20260102T030400.000Z-000000.png")
    ]
    foreign[0].parent.mkdir()
    for path in foreign:
        path.write_bytes(bytes(50_000))
    first = collecting(tmp_path)
    for i in range(20):
        first.write(make_result(30 * i, p=0.1, size=(64, 64)))
    first.close()
    (tmp_path / INDEX).unlink()  # an index that was deleted is started again
    again = collecting(tmp_path, max_mib=0.02)
    assert sum(p.stat().st_size for p in tmp_path.rglob("*Z-*.jpg")) <= 0.02 * MIB
    again.write(make_result(1000, p=0.1, size=(64, 64)))
    again.write(make_result(1100, p=0.1, size=(640, 640)))  # larger than all there may be
    again.close()
    assert all(path.exists() for path in foreign)
    assert index(tmp_path) == ["red/20260102T030440.000Z-001000.jpg"]


def test_a_label_whose_frames_were_all_removed_leaves_no_folder(
    make_result: MakeResult, tmp_path: Path
) -> None:
    collector = collecting(tmp_path, max_mib=0.1)
    for i in range(40):
        collector.write(
            make_result(
                30 * i, p=0.1, size=(64, 64), label=("rare" if i == 0 else ("a", "b")[i % 2])
            )
        )
    collector.close()
    assert open_dataset(tmp_path).labels == ("a", "b")


@pytest.mark.parametrize("folder", ["a_file", "a_file/below", "/proc/finedge"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_run(
    folder: str, tmp_path: Path
) -> None:
    (tmp_path / "a_file").touch()
    with pytest.raises(SystemProblem, match="--collect: the folder"):
        open_collect(Outputs(collect=tmp_path / folder), CONTEXT)


def test_frames_that_are_not_kept_do_not_fill_the_queue(
    make_result: MakeResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(
        "finedge.runtime.sinks.collect.write_bytes",
        lambda path, data: gate.wait(10.0) and write_bytes(path, data),
    )
    sink = open_collect(Outputs(collect=tmp_path), CONTEXT)
    assert sink is not None
    for frame in range(1, 20 * SIZE):
        sink.write(make_result(frame, p=0.1 if frame == 1 else 0.9))
    sink.write(make_result(5000, p=0.1))
    gate.set()
    sink.close()
    assert len(names(tmp_path)) == 2
    assert "too slow" not in caplog.text


def test_two_frames_of_the_same_moment_are_both_kept(
    make_result: MakeResult, tmp_path: Path
) -> None:
    collector = collecting(tmp_path)
    for stream in (0, 1):
        collector.write(make_result(0, p=0.1, stream=stream))
    assert len(names(tmp_path)) == 2
    assert index(tmp_path) == names(tmp_path)


@pytest.mark.parametrize(
    "label",
    [
        "red",
        "a/b",
        "../x",
        ".hidden",
        "..",
        "",
        "x" * 300,
        "a\0b",
        "\ud800",
        "CON",
        "a.",
        "ä" * 300,
        "/etc",
    ],
)
def test_a_label_never_leaves_the_folder(
    label: str, make_result: MakeResult, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    collector = collecting(folder)
    collector.write(make_result(p=0.1, label=label))
    collector.close()
    assert [p.parent.parent for p in tmp_path.rglob("*.jpg")] == [folder]
    assert [p.parent.name for p in tmp_path.rglob("*.jpg")] == [file_name(label)]
    assert json.loads((folder / INDEX).read_text())["top"][0]["label"] == label


def test_two_labels_never_share_a_folder(make_result: MakeResult, tmp_path: Path) -> None:
    labels = ["a/b", "a_b", "a\\b", "a%2Fb", "x" * 299 + "y", "x" * 299 + "z"]
    for label in labels:
        collecting(tmp_path).write(make_result(p=0.1, label=label))
    assert len({p.parent.name for p in tmp_path.rglob("*.jpg")}) == len(labels)


@pytest.mark.parametrize("mask", [0o077, 0o022])
def test_kept_frames_obey_the_umask(mask: int, make_result: MakeResult, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        collecting(tmp_path).write(make_result(p=0.1))
    finally:
        os.umask(before)
    (path,) = tmp_path.rglob("*.jpg")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / INDEX).stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize(("below", "max_mib"), [(0, 1), (1.5, 1), (0.5, 0), (0.5, -1)])
def test_limits_that_keep_nothing_are_refused(below: float, max_mib: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--collect"):
        CollectOptions(tmp_path, below=below, max_mib=max_mib)


FOREIGN = {"no UTF-8": b"\xff\xfe", "deep": b"[" * 100_000, "long": b"9" * 5000, "a list": b"[]"}


@pytest.mark.parametrize("line", FOREIGN.values(), ids=FOREIGN)
def test_foreign_lines_of_an_index_end_no_run(
    line: bytes, make_result: MakeResult, tmp_path: Path
) -> None:
    (tmp_path / INDEX).write_bytes(line + b"\n")
    collecting(tmp_path).write(make_result(p=0.1))
    assert index(tmp_path) == names(tmp_path)


def test_an_index_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / INDEX)
    with pytest.raises(OSError, match="it is a named pipe"):
        collecting(tmp_path)


def test_other_things_named_like_frames_are_not_counted_nor_touched(
    make_result: MakeResult, tmp_path: Path
) -> None:
    (tmp_path / "red" / "20250101T000000.000Z-000001.jpg").mkdir(parents=True)
    (tmp_path / "red" / "20250101T000000.000Z-000002.jpg").symlink_to("nowhere")
    collecting(tmp_path, max_mib=1e-6)
    assert len(list((tmp_path / "red").iterdir())) == 2
