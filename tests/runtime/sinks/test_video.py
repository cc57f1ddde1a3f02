from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from finedge.errors import SystemProblem, UsageError
from finedge.runtime.sinks import Context, Outputs, Result
from finedge.runtime.sinks.overlay import draw, lines
from finedge.runtime.sinks.video import CODECS, VideoFile, open_video

MakeResult = Callable[..., Result]


def read(path: Path) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (720, 406)])
def test_the_video_has_every_frame_at_the_sources_rate_and_size(suffix: str, size: tuple[int, int], make_result: MakeResult, tmp_path: Path) -> None:
    video = VideoFile(tmp_path / f"out{suffix}", 12.5)
    for frame in range(5):
        video.write(make_result(frame, size=size))
    video.close()
    frames, fps = read(video.path)
    # MPEG-4 and Motion JPEG store odd sizes as they are; FFmpeg's writer in OpenCV cuts them to even ones.
    assert {f.shape for f in frames} == {(size[0] // 2 * 2, size[1] // 2 * 2, 3)}
    assert (len(frames), fps) == (5, 12.5)
    assert [p.name for p in tmp_path.iterdir()] == [video.path.name]


def test_dropped_frames_are_filled_up_to_a_second_so_that_the_pace_is_right(make_result: MakeResult, tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "out.avi", 10.0)
    for frame in (7, 8, 11, 500):
        video.write(make_result(frame))
    video.close()
    assert len(read(video.path)[0]) == 1 + 1 + 3 + 10


def test_frames_of_another_size_are_fitted_to_the_first(make_result: MakeResult, tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "out.avi", 10.0)
    for frame, size in enumerate([(48, 64), (100, 30)]):
        video.write(make_result(frame, size=size))
    video.close()
    assert [f.shape for f in read(video.path)[0]] == [(48, 64, 3)] * 2


def test_the_old_video_stays_until_the_new_one_is_whole(make_result: MakeResult, tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "out.mp4", 10.0)
    video.path.write_text("old")
    video.write(make_result())
    assert video.path.read_text() == "old"
    video.close()
    assert len(read(video.path)[0]) == 1


def test_several_sources_are_several_files(make_result: MakeResult, tmp_path: Path) -> None:
    sink = open_video(Outputs(save=tmp_path / "out.avi"), Context("tiny", names=("a", "b"), fps=(10.0, None), live=False, stop=lambda: None))
    assert sink is not None
    for frame, stream in ((0, 0), (0, 1), (1, 0)):
        sink.write(make_result(frame, stream=stream))
    sink.close()
    assert [(p.name, len(read(p)[0]), read(p)[1]) for p in sorted(tmp_path.iterdir())] == [("out-0.avi", 2, 10.0), ("out-1.avi", 1, 1.0)]


def test_a_name_without_a_codec_and_a_place_that_cannot_be_written_are_refused(make_result: MakeResult, tmp_path: Path) -> None:
    context = Context("tiny", names=("a",), fps=(10.0,), live=False, stop=lambda: None)
    with pytest.raises(UsageError, match=r"out\.gif"):
        open_video(Outputs(save=tmp_path / "out.gif"), context)
    (tmp_path / ".out.partial.mp4").mkdir()
    with pytest.raises(SystemProblem, match=r"out\.mp4"):
        VideoFile(tmp_path / "out.mp4", 10.0).write(make_result())


def test_the_overlay_says_the_labels_and_what_is_wrong(make_result: MakeResult) -> None:
    assert lines(make_result(label="Ärtsoppa").record) == ["Artsoppa 90 %", "12 ms"]
    assert lines(make_result(status="unknown").record)[0] == "unknown"
    assert lines(make_result(p=None).record) == ["no signal"]


def test_the_overlay_is_drawn_on_a_copy_in_bgr(make_result: MakeResult) -> None:
    result = make_result(size=(480, 640), roi=[100, 200, 300, 50])
    assert result.image is not None
    picture = draw(result.image, result.record)
    assert not np.array_equal(picture, result.image[..., ::-1])
    np.testing.assert_array_equal(picture[300:, :, :], result.image[300:, :, ::-1])  # nothing below the region
    assert len({tuple(picture[200, x]) for x in range(100, 400)}) == 1
