from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from finedge.errors import SystemProblem, UsageError
from finedge.runtime.sinks import Context, Outputs, Result
from finedge.runtime.sinks.overlay import draw, lines
from finedge.runtime.sinks.video import CODECS, Videos, VideoWriter, frame_rate, open_video

MakeResult = Callable[..., Result]
CONTEXT = Context("tiny", names=("a",), fps=(10.0,), live=False, stop=lambda: None)

# No file may grow past 300 kB: to a writer that is a full disk.
CUT_OFF = """
import resource, sys
import numpy as np
from pathlib import Path
from finedge.errors import SystemProblem
from finedge.runtime.sinks import Result
from finedge.runtime.sinks.video import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
video, rng = VideoWriter(Path(sys.argv[1]), 10.0), np.random.default_rng(0)
record = {"status": "ok", "top": [{"label": "red", "p": 0.9}], "age_ms": 1.0}
for frame in range(40):
    image = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    video.write(Result(record, image, seconds=frame / 10))
try:
    video.close()
except SystemProblem as error:
    print(type(error).__name__)
"""


def read(path: Path) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (720, 406)])
def test_the_video_has_every_frame_at_the_sources_rate_and_size(
    suffix: str, size: tuple[int, int], make_result: MakeResult, tmp_path: Path
) -> None:
    video = VideoWriter(tmp_path / f"out{suffix}", 12.5)
    for frame in range(5):
        video.write(make_result(frame, size=size, seconds=frame / 12.5))
    video.close()
    frames, fps = read(video.path)
    # MPEG-4 and Motion JPEG can store odd sizes. FFmpeg's writer in OpenCV cuts them to even ones.
    assert {f.shape for f in frames} == {(size[0] // 2 * 2, size[1] // 2 * 2, 3)}
    assert (len(frames), fps) == (5, 12.5)
    assert [p.name for p in tmp_path.iterdir()] == [video.path.name]


def grey(result: Result, level: int) -> Result:
    return replace(result, image=np.full((96, 128, 3), level, np.uint8))


def test_a_frame_is_shown_until_the_next_one_for_at_most_a_second(
    make_result: MakeResult, tmp_path: Path
) -> None:
    video = VideoWriter(tmp_path / "out.avi", 10.0)
    for frame, level in ((7, 40), (8, 80), (11, 120), (500, 160)):
        video.write(grey(make_result(frame, seconds=frame / 10), level))
    video.close()
    levels = [round(float(f[80:, 100:].mean()) / 40) for f in read(video.path)[0]]
    assert levels == [1] + [2] * 3 + [3] * 10 + [4]


@pytest.mark.parametrize("true_fps", [4.0, 9.7, 10.0, 10.3, 33.0])
def test_a_camera_that_does_not_keep_its_rate_is_shown_at_the_pace_of_time(
    true_fps: float, make_result: MakeResult, tmp_path: Path
) -> None:
    video = VideoWriter(tmp_path / "out.avi", 10.0, live=True)
    rng = np.random.default_rng(0)
    times = [(frame + 0.4 * rng.random()) / true_fps for frame in range(round(20 * true_fps))]
    for frame, seconds in enumerate(times):
        video.write(make_result(frame, seconds=seconds))
    video.close()
    assert len(read(video.path)[0]) == pytest.approx(200, abs=5)


def test_photos_are_shown_once_each(make_result: MakeResult, tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / "out.avi", 1.0)
    for frame in (0, 1, 7):
        video.write(replace(make_result(frame), seconds=None))
    video.close()
    assert len(read(video.path)[0]) == 3


@pytest.mark.parametrize(
    ("reported", "live", "rate"),
    [
        (12.5, True, 12.5),
        (None, True, 25.0),
        (90000.0, True, 25.0),
        (960.0, False, 960.0),
        (None, False, 1.0),
    ],
)
def test_a_source_that_does_not_report_its_rate_gets_a_usual_one(
    reported: float | None, live: bool, rate: float
) -> None:
    assert frame_rate(reported, live=live) == rate


def test_on_a_disk_that_runs_full_the_video_ends_and_is_whole(
    make_result: MakeResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = VideoWriter(tmp_path / "out.mp4", 10.0)
    for frame in range(3):
        video.write(make_result(frame, seconds=frame / 10))
    monkeypatch.setattr("finedge.runtime.sinks.video.MIN_FREE", 1 << 62)
    with pytest.raises(OSError, match=r"No space.*out\.mp4"):
        video.write(make_result(3))
    video.close()
    assert len(read(video.path)[0]) == 3


def test_a_damaged_video_does_not_keep_the_others_from_being_finished(
    make_result: MakeResult, tmp_path: Path
) -> None:
    videos = Videos((VideoWriter(tmp_path / "a.avi", 10.0), VideoWriter(tmp_path / "b.avi", 10.0)))
    for stream in (0, 1):
        videos.write(make_result(stream=stream))
    videos.files[0]._written += 1
    with pytest.raises(SystemProblem, match=r"a\.partial\.avi is damaged"):
        videos.close()
    assert len(read(tmp_path / "b.avi")[0]) == 1


@pytest.mark.parametrize("suffix", CODECS)
def test_a_video_that_did_not_reach_the_disk_does_not_replace_the_old_one(
    suffix: str, tmp_path: Path
) -> None:
    (tmp_path / f"out{suffix}").write_text("old")
    run = subprocess.run(
        [sys.executable, "-c", CUT_OFF, str(tmp_path / f"out{suffix}")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "SystemProblem\n"), run.stderr[-500:]
    assert (tmp_path / f"out{suffix}").read_text() == "old"


def test_frames_of_another_size_are_fitted_to_the_first(
    make_result: MakeResult, tmp_path: Path
) -> None:
    video = VideoWriter(tmp_path / "out.avi", 10.0)
    for frame, size in enumerate([(48, 64), (100, 30)]):
        video.write(make_result(frame, size=size))
    video.close()
    assert [f.shape for f in read(video.path)[0]] == [(48, 64, 3)] * 2


def test_the_old_video_stays_until_the_new_one_is_whole(
    make_result: MakeResult, tmp_path: Path
) -> None:
    video = VideoWriter(tmp_path / "out.mp4", 10.0)
    video.path.write_text("old")
    video.write(make_result())
    assert video.path.read_text() == "old"
    video.close()
    assert len(read(video.path)[0]) == 1


def test_nothing_is_written_through_a_link_under_the_name_of_a_half_video(
    make_result: MakeResult, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".link.partial.mp4").symlink_to("victim")
    os.mkfifo(tmp_path / ".pipe.partial.mp4")
    for name in ("link.mp4", "pipe.mp4"):
        video = VideoWriter(tmp_path / name, 10.0)
        video.write(make_result(0))
        video.close()
        assert len(read(tmp_path / name)[0]) == 1
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_link_stays_and_what_is_behind_it_is_replaced(
    make_result: MakeResult, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.mp4").symlink_to("disk/out.mp4")
    sink = open_video(Outputs(save=tmp_path / "out.mp4"), CONTEXT)
    assert sink is not None
    sink.write(make_result(0))
    sink.close()
    assert (tmp_path / "out.mp4").is_symlink()
    assert len(read(tmp_path / "disk" / "out.mp4")[0]) >= 1


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_replaced_by_a_video(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "out.mp4")
    with pytest.raises(SystemProblem, match="is no file"):
        open_video(Outputs(save=tmp_path / "out.mp4"), CONTEXT)


def test_several_sources_are_several_files(make_result: MakeResult, tmp_path: Path) -> None:
    sink = open_video(
        Outputs(save=tmp_path / "out.avi"),
        Context("tiny", names=("a", "b"), fps=(10.0, None), live=False, stop=lambda: None),
    )
    assert sink is not None
    for frame, stream in ((0, 0), (0, 1), (1, 0)):
        sink.write(make_result(frame, stream=stream, seconds=frame / 10))
    sink.close()
    assert [(p.name, len(read(p)[0]), read(p)[1]) for p in sorted(tmp_path.iterdir())] == [
        ("out-0.avi", 2, 10.0),
        ("out-1.avi", 1, 1.0),
    ]


def test_a_name_without_a_codec_and_a_read_only_folder_are_refused(
    make_result: MakeResult, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"out\.gif"):
        open_video(Outputs(save=tmp_path / "out.gif"), CONTEXT)
    (tmp_path / ".out.partial.mp4").mkdir()
    with pytest.raises(SystemProblem, match="--save: the folder"):
        open_video(Outputs(save=Path("/proc/finedge/out.mp4")), CONTEXT)
    with pytest.raises(SystemProblem, match=r"out\.mp4"):
        VideoWriter(tmp_path / "out.mp4", 10.0).write(make_result())


def test_a_name_that_is_not_utf8_is_refused_and_crashes_nothing(
    make_result: MakeResult, tmp_path: Path
) -> None:
    video = VideoWriter(tmp_path / os.fsdecode(b"out-\xff.mp4"), 10.0)
    with pytest.raises(SystemProblem, match="a name of other bytes"):
        video.write(make_result(0))


def test_the_overlay_says_the_labels_and_what_is_wrong(make_result: MakeResult) -> None:
    assert lines(make_result(label="Ärtsoppa").record) == ["Artsoppa 90 %", "12 ms"]
    assert lines(make_result(status="unknown").record)[0] == "unknown"
    assert lines(make_result(p=None).record) == ["no signal"]


def test_the_overlay_is_drawn_on_a_copy_in_bgr(make_result: MakeResult) -> None:
    result = make_result(size=(480, 640), roi=[100, 200, 300, 50])
    assert result.image is not None
    picture = draw(result.image, result.record)
    assert not np.array_equal(picture, result.image[..., ::-1])
    np.testing.assert_array_equal(
        picture[300:, :, :], result.image[300:, :, ::-1]
    )  # nothing below the region
    assert len({tuple(picture[200, x]) for x in range(100, 400)}) == 1
