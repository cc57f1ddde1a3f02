"""Runs with a finder: a film of coloured squares on a grey wall."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.cli import main
from finedge.errors import UsageError
from finedge.runtime.classifier import Classifier
from finedge.runtime.events.event import Event
from finedge.runtime.find.box import Box
from finedge.runtime.find.camera import CameraFinder
from finedge.runtime.find.motion import MotionFinder
from finedge.runtime.sinks import Result
from finedge.runtime.sources import Frame, SourceInfo
from finedge.runtime.stream import pipeline as pipeline_module
from finedge.runtime.stream.objects import ObjectResults, ObjectRules
from finedge.runtime.stream.pipeline import Detections, Pipeline, Silence
from finedge.runtime.stream.results import Results
from finedge.runtime.track.track import TrackRule

FPS = 10.0
RED, BLUE = (210, 30, 40), (30, 50, 210)
Square = tuple[tuple[int, int, int], int, int]  # colour, x, y


class Film:
    """A video whose frames hold coloured squares of 30 pixels."""

    live = False

    def __init__(self, scenes: Sequence[Sequence[Square]], name: str = "film") -> None:
        self.info, self._scenes = SourceInfo("video", name, None, 200, 150, FPS), scenes

    def __iter__(self) -> Iterator[Frame]:
        for index, squares in enumerate(self._scenes):
            yield Frame(index, time.monotonic_ns(), picture(squares), self.info.uri, 0.0)

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def picture(squares: Sequence[Square]) -> NDArray[np.uint8]:
    image = np.full((150, 200, 3), 120, np.uint8)
    for colour, x, y in squares:
        image[y : y + 30, x : x + 30] = colour
    return image


def film(*scenes: tuple[float, Sequence[Square]]) -> Film:
    """Return a film: an empty second, then each scene for its seconds."""
    pictures: list[Sequence[Square]] = [()] * int(FPS)
    for seconds, squares in scenes:
        pictures += [squares] * round(seconds * FPS)
    return Film(pictures)


@pytest.fixture
def classifier(tiny_bundle: Bundle) -> Iterator[Classifier]:
    with Classifier.open(tiny_bundle, variant="fp32", topk=2, threads=1) as classifier:
        yield classifier


def run(
    classifier: Classifier,
    *films: Film,
    gap_s: float = 1.0,
    idle_s: float = 10.0,
    margin: float = 0.0,
) -> tuple[list[Result], list[Event]]:
    finders = [CameraFinder(MotionFinder(), margin=margin) for _ in films]
    results = Results(classifier, films)
    rules = ObjectRules(idle_s, TrackRule(gap_s=gap_s))
    objects = ObjectResults(results, finders, rules)
    with Pipeline(films, classifier, finders=finders) as pipeline:
        outcomes = [objects(o) for o in pipeline if isinstance(o, Detections | Silence)]
    events = [event for result in outcomes for event in result.events]
    return outcomes, [*events, *objects.close()]


def test_each_thing_has_a_line_with_its_box_and_track(classifier: Classifier) -> None:
    results, _ = run(classifier, film((1.0, [(RED, 20, 20), (BLUE, 120, 90)])))
    result = results[-1]
    red, blue = result.lines
    assert (red["top"][0]["label"], blue["top"][0]["label"]) == ("red", "blue")
    assert (red["track"], blue["track"]) == (1, 2)
    assert Box(*red["box"]).overlap(Box(20, 20, 30, 30)) > 0.7
    assert Box(*blue["box"]).overlap(Box(120, 90, 30, 30)) > 0.7
    assert {"find", "preprocess", "infer", "post", "decode"} == set(red["ms"])
    assert red["raw_top"][0]["label"] == "red"
    assert result.record is red
    json.dumps(result.lines)


def test_an_empty_scene_is_idle_and_says_so_once(classifier: Classifier) -> None:
    results, events = run(classifier, film((3.0, [])), idle_s=2.0)
    assert events == []
    assert [r.record["status"] for r in results] == ["idle"] * 40
    printed = [r.record["frame"] for r in results if r.lines]
    assert printed == [0, 20]
    assert results[0].record["ms"]["infer"] is None


def test_a_visit_starts_and_ends_with_its_answer(classifier: Classifier) -> None:
    _, events = run(classifier, film((2.0, [(RED, 20, 20)]), (2.0, [])))
    start, end = events
    assert (start.kind, end.kind, start.id) == ("started", "ended", end.id)
    assert (start.answer, start.label) == (None, "unknown")  # it is not sure so soon
    assert (end.label, end.track, end.frames) == ("red", 1, 20)
    assert end.answer is not None
    assert end.answer.p > 0.5
    assert end.seconds == pytest.approx(1.9)
    assert (end.crop[15, 15] == RED).all()
    assert Box(end.box.x, end.box.y, end.box.w, end.box.h).overlap(Box(20, 20, 30, 30)) > 0.7
    assert abs(end.started_at - time.time()) < 600
    assert end.ended_at >= end.started_at
    json.dumps(end.record())


def test_the_best_crop_shows_one_thing_if_there_is_such_a_crop(classifier: Classifier) -> None:
    scenes: list[tuple[float, Sequence[Square]]]
    scenes = [(2.0, [(RED, 20, 20), (BLUE, 66, 20)]), (0.5, [(RED, 20, 20)])]
    _, events = run(classifier, film(*scenes), margin=0.8)
    (red,) = [event for event in events if (event.kind, event.box.x < 50) == ("ended", True)]
    assert (red.crop[20:50, 20:50] == RED).any()
    assert not (np.abs(red.crop.astype(int) - BLUE).sum(axis=2) < 60).any()


def test_an_absence_longer_than_the_gap_makes_two_visits(classifier: Classifier) -> None:
    scenes: list[tuple[float, Sequence[Square]]]
    scenes = [(1.0, [(RED, 20, 20)]), (0.6, []), (1.0, [(RED, 120, 90)])]
    _, one = run(classifier, film(*scenes), gap_s=1.0)
    assert [event.kind for event in one] == ["started", "ended"]
    _, two = run(classifier, film(*scenes), gap_s=0.4)
    assert [event.kind for event in two] == ["started", "ended"] * 2


def test_two_things_that_swap_places_keep_their_answers(classifier: Classifier) -> None:
    crossing = [[(RED, 20 + 12 * i, 20), (BLUE, 140 - 12 * i, 100)] for i in range(11)]
    scenes: list[tuple[float, Sequence[Square]]] = [(1.5, [(RED, 20, 20), (BLUE, 140, 100)])]
    scenes += [(0.1, squares) for squares in crossing]
    scenes += [(1.0, [(RED, 140, 20), (BLUE, 20, 100)])]
    results, events = run(classifier, film(*scenes))
    labels = {line["track"]: line["top"][0]["label"] for line in results[-1].lines}
    assert sorted(labels.values()) == ["blue", "red"]
    assert len(labels) == 2
    assert sorted(event.label for event in events if event.kind == "ended") == ["blue", "red"]


def test_a_clock_that_jumps_changes_no_length(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, calls = time.time_ns(), iter(range(10_000))
    monkeypatch.setattr(time, "time_ns", lambda: now + 3_600_000_000_000 * next(calls))
    _, events = run(classifier, film((2.0, [(RED, 20, 20)])))
    assert [round(event.seconds, 3) for event in events if event.kind == "ended"] == [1.9]


def test_the_crops_of_all_sources_go_as_bounded_batches(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "MAX_CROPS", 3)
    sizes: list[int] = []

    class Counting:
        prepare = staticmethod(classifier.prepare)

        @staticmethod
        def scores(
            batch: NDArray[np.uint8], *, frames: Sequence[NDArray[np.uint8]]
        ) -> NDArray[np.float32]:
            assert len(frames) == len(batch)
            sizes.append(len(batch))
            return classifier.scores(batch)

    squares = [(RED, 5, 5), (BLUE, 60, 5), (RED, 120, 5), (BLUE, 5, 90), (RED, 60, 90)]
    source = film((0.3, squares))
    finder = CameraFinder(MotionFinder(), max_objects=4)
    with Pipeline([source], Counting(), finders=[finder]) as pipeline:
        outputs = [o for o in pipeline if isinstance(o, Detections)]
    assert sizes == [3, 1] * 3
    assert [len(o.boxes) for o in outputs] == [0] * 10 + [4] * 3
    assert outputs[-1].scores.shape[0] == 4


def classify(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[Any], str]:
    code = main(["classify", *map(str, words)])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_the_command_finds_birds_in_a_rendered_scene(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Bundle
) -> None:
    words = [tiny_bundle.path, "test://?birds=0&fps=50", "--find", "motion", "--frames", 4]
    code, lines, log = classify(capsys, *words, "--variant", "fp32")
    assert code == 0
    assert [line["status"] for line in lines] == ["idle"]
    assert "0 classified, 4 idle (nothing found, not classified)" in log


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--events"], "--events without --find"),
        (["--find", "motion", "--smooth", "1"], "--find with --smooth"),
        (["--find", "motion", "--roi", "0,0,9,9"], "--find with --smooth, --hold or --roi"),
        (["--find", "birds"], "--find birds"),
        (["--find", "motion", "--visit-gap-s", "0"], "--visit-gap-s 0"),
        (["--find", "motion", "--max-objects", "0"], "--max-objects 0"),
        (["--find", "motion", "--zone", "a=1"], "--zone a=1"),
        (["--find", "motion", "--find-threshold", "2"], "--find-threshold 2"),
        (["--find", "motion", "--crop-margin", "-1"], "--crop-margin -1"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    words: list[str], text: str, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines, log = classify(capsys, tiny_bundle.path, "test://?birds=0", *words)
    assert (code, lines) == (2, [])
    assert text in log


def test_photos_do_not_move(
    tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    from PIL import Image

    Image.fromarray(picture([])).save(tmp_path / "a.png")
    code, _, log = classify(capsys, tiny_bundle.path, tmp_path / "a.png", "--find", "motion")
    assert code == 2
    assert "photos do not move" in log


def test_a_zone_outside_the_frame_ends_the_run(
    tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    zone = ["--zone", "a=0,0,2000,0,2000,9"]
    words = [tiny_bundle.path, "test://?birds=0", "--find", "motion", *zone, "--variant", "fp32"]
    code, _, log = classify(capsys, *words)
    assert code == 2
    assert "for a frame of 1280x720" in log
    assert UsageError.exit_code == 2
