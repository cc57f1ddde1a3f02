from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from finedge.bundle import Bundle
from finedge.cli import main
from finedge.runtime.classifier import Classifier
from finedge.runtime.fake import FakeBackend
from finedge.runtime.machine.packages import is_installed
from finedge.runtime.sources import Frame, SourceInfo
from finedge.runtime.stream.pipeline import Answer, Pipeline
from finedge.runtime.stream.results import Results

SOON_S = 10.0  # an end to waiting, never reached when the code is right
KEYS = [
    "schema",
    "source",
    "frame",
    "status",
    "captured_at",
    "age_ms",
    "top",
    "ms",
    "variant",
    "backend",
    "file",
]

needs_serve = pytest.mark.skipif(
    importlib.util.find_spec("uvicorn") is None, reason="the extra [serve] is not installed"
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in {"a": (210, 30, 40), "b": (30, 50, 210), "c": (240, 240, 240)}.items():
        Image.new("RGB", (60, 48), colour).save(folder / f"{name}.png")
    return folder


class Flickering:
    """A camera that is silent until `wakes`, gives one frame, and is silent until `ends`."""

    live, info = True, SourceInfo("camera", "cam")

    def __init__(self) -> None:
        self.wakes, self.ends = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        self.wakes.wait(SOON_S)
        yield Frame(7, time.monotonic_ns(), np.zeros((40, 40, 3), np.uint8), "cam", 0.0)
        self.ends.wait(SOON_S)

    def __enter__(self) -> Flickering:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def run(
    capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, list[dict[str, Any]], str]:
    code = main(["classify", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def classify_command(bundle: Bundle) -> list[str]:
    """Return a command that classifies a live source for ever."""
    program = [sys.executable, "-m", "finedge", "classify"]
    return [*program, str(bundle.path), "test://", "--backend", "fake"]


def test_a_folder_gives_one_line_an_image_with_the_right_label(
    tiny_bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines, _ = run(capsys, tiny_bundle.path, photos, "--variant", "fp32", "--topk", 2)
    assert code == 0
    assert [(Path(r["source"]).name, r["frame"], r["top"][0]["label"]) for r in lines] == [
        ("a.png", 0, "red"),
        ("b.png", 1, "blue"),
        ("c.png", 2, "white"),
    ]
    for record in lines:
        assert sorted(record) == sorted(KEYS)
        assert sorted(record["ms"]) == ["decode", "infer", "post", "preprocess"]
        assert [sorted(t) for t in record["top"]] == [["index", "label", "p"]] * 2
        assert 0 <= record["top"][1]["p"] <= record["top"][0]["p"] <= 1
        assert (
            record["schema"],
            record["status"],
            record["variant"],
            record["backend"],
            record["file"],
        ) == (1, "ok", "fp32", "onnxruntime", "model.fp32.onnx")
        assert record["age_ms"] >= record["ms"]["preprocess"] + record["ms"]["infer"]
        captured = datetime.fromisoformat(record["captured_at"].replace("Z", "+00:00"))
        assert captured.utcoffset() == timezone.utc.utcoffset(None)
        assert abs((datetime.now(timezone.utc) - captured).total_seconds()) < 600


def test_the_file_that_runs_is_in_every_line(
    tiny_bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines, _ = run(capsys, tiny_bundle.path, photos / "a.png")
    assert [(r["variant"], r["file"]) for r in lines] == [("int8", "model.int8.cpu.onnx")]


def test_a_live_source_stops_after_the_frames_asked_for_and_sums_up(
    tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines, log = run(
        capsys,
        tiny_bundle.path,
        "test://",
        "--backend",
        "fake",
        "--frames",
        3,
        "--stale-ms",
        60_000,
    )
    assert code == 0
    assert [r["status"] for r in lines] == ["ok"] * 3
    assert lines[0]["frame"] < lines[1]["frame"] < lines[2]["frame"]
    assert "3 classified" in log


def test_a_live_answer_that_comes_too_late_is_stale(
    tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines, _ = run(
        capsys, tiny_bundle.path, "test://", "--backend", "fake", "--frames", 1, "--stale-ms", 1e-6
    )
    assert [(r["status"], len(r["top"])) for r in lines] == [("stale", 5)]


def test_a_file_is_never_stale(
    tiny_bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines, _ = run(capsys, tiny_bundle.path, photos, "--stale-ms", 1e-6)
    assert {r["status"] for r in lines} == {"ok"}


def test_silence_is_a_record_and_never_reaches_the_model(tiny_bundle: Bundle) -> None:
    backend = FakeBackend()
    classifier = Classifier(tiny_bundle, backend.open(tiny_bundle, variant="fp32"), "fp32")
    camera = Flickering()
    results_of = Results(classifier, [camera])
    with Pipeline([camera], classifier, no_signal_ms=20) as pipeline:
        results = []
        for answer in pipeline:
            results.append(results_of(answer))
            if len(results) == 1:
                camera.wakes.set()
            elif len(results) > 2 and results[-1].image is None:
                camera.ends.set()
    facts = [
        (
            r.record["status"],
            r.record["frame"],
            r.record["captured_at"] is None,
            r.record["top"] == [],
            r.image is None,
        )
        for r in results
    ]
    silence, answer = ("no_signal", None, True, True, True), ("ok", 7, False, False, False)
    assert set(facts) == {silence, answer}
    assert (facts[0], facts.count(answer), facts[-1]) == (silence, 1, silence)
    assert all(sorted(r.record) == sorted(KEYS) for r in results)
    assert {r.record["source"] for r in results} == {"cam"}
    assert f"{facts.count(silence)} times no signal" in results_of.summary(pipeline.counts)
    assert len(backend.inputs) == 1


def test_a_clock_that_is_set_while_the_run_goes_on_is_believed(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = Frame(0, time.monotonic_ns(), np.zeros((40, 40, 3), np.uint8), "cam", 0.0)
    classifier = Classifier(tiny_bundle, FakeBackend().open(tiny_bundle, variant="fp32"), "fp32")
    results = Results(classifier, [Flickering()])
    # A board without a battery, once it reaches a time server.
    later = int(datetime(2040, 1, 1, tzinfo=timezone.utc).timestamp() * 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: later)
    scores = np.zeros(len(tiny_bundle.spec.labels), np.float32)
    record = results(Answer(0, frame, scores, 0.0, 0.0)).record
    captured = datetime.fromisoformat(record["captured_at"].replace("Z", "+00:00")).timestamp()
    assert 0 <= later / 1e9 - captured < SOON_S


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Forty frames, 20 a second: red, but every fifth one is blue.

    The blue has the same grey level, so it is no change of scene.
    """
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (60, 48)
    )
    for i in range(40):
        bgr = (220, 90, 30) if i % 5 == 4 else (40, 30, 210)
        writer.write(np.full((48, 60, 3), bgr, np.uint8))
    writer.release()
    return tmp_path / "clip.avi"


def test_several_sources_give_every_frame_of_each_once_and_in_order(
    tiny_bundle: Bundle, photos: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines, log = run(
        capsys, tiny_bundle.path, clip, photos, photos / "a.png", "--variant", "fp32"
    )
    assert code == 0
    assert [r["frame"] for r in lines if r["source"] == str(clip)] == list(range(40))
    assert [r["frame"] for r in lines if r["source"].endswith(("b.png", "c.png"))] == [1, 2]
    assert len(lines) == 40 + 3 + 1
    labels = {("clip", i % 5 == 4): "blue" if i % 5 == 4 else "red" for i in range(40)}
    assert all(
        r["top"][0]["label"] == labels["clip", r["frame"] % 5 == 4]
        for r in lines
        if r["source"] == str(clip)
    )
    assert [
        part.split(" classified")[0].split()[-1]
        for part in log.splitlines()
        if "classified" in part
    ] == ["40", "3", "1"]


def test_a_live_source_and_a_file_run_together(
    tiny_bundle: Bundle, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines, _ = run(
        capsys,
        tiny_bundle.path,
        "test://",
        clip,
        "--backend",
        "fake",
        "--frames",
        60,
        "--stale-ms",
        60_000,
    )
    assert code == 0
    assert [r["frame"] for r in lines if r["source"] == str(clip)] == list(range(40))
    live = [r["frame"] for r in lines if r["source"] == "test://"]
    assert len(live) == 20
    assert live == sorted(set(live))


def test_smoothing_calms_a_flickering_answer_and_keeps_raw_top(
    tiny_bundle: Bundle, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, plain, _ = run(capsys, tiny_bundle.path, clip, "--variant", "fp32")
    _, smooth, _ = run(capsys, tiny_bundle.path, clip, "--variant", "fp32", "--smooth", 1.0)
    assert {r["top"][0]["label"] for r in plain} == {"red", "blue"}
    assert {r["top"][0]["label"] for r in smooth} == {"red"}
    assert [r["raw_top"] for r in smooth] == [r["top"] for r in plain]
    assert all("raw_top" not in r for r in plain)
    assert all(sorted(r) == sorted([*KEYS, "raw_top"]) for r in smooth)


def test_an_answer_below_the_bundles_threshold_is_unknown(
    tiny_bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sure = tiny_bundle.extend(
        "calibrate", {}, {"confidence": {"fp32": {"temperature": 100.0, "reject": 0.9}}}
    )
    for smooth in ([], ["--hold", 1]):
        _, lines, _ = run(capsys, sure.path, photos, "--variant", "fp32", *smooth)
        assert [(r["status"], r["top"][0]["label"]) for r in lines] == [
            ("unknown", "red"),
            ("unknown", "blue"),
            ("unknown", "white"),
        ]
        assert all(r["top"][0]["p"] < 0.9 for r in lines)


def test_a_held_label_comes_first_until_another_led_long_enough(
    tiny_bundle: Bundle, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines, _ = run(capsys, tiny_bundle.path, clip, "--variant", "fp32", "--hold", 2)
    assert {r["top"][0]["label"] for r in lines} == {"red"}
    assert lines[4]["raw_top"][0]["label"] == "blue"
    assert lines[4]["top"][1]["label"] == "blue"


def test_only_the_region_of_interest_is_classified(
    tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = Image.new("RGB", (200, 100), (210, 30, 40))
    picture.paste((30, 50, 210), (100, 0, 200, 100))
    picture.save(tmp_path / "halves.png")
    for roi, label, pixels in (
        ("0,0,0.5,1", "red", [0, 0, 100, 100]),
        ("100,0,100,100", "blue", [100, 0, 100, 100]),
    ):
        _, (line,), _ = run(
            capsys, tiny_bundle.path, tmp_path / "halves.png", "--variant", "fp32", "--roi", roi
        )
        assert (line["top"][0]["label"], line["roi"]) == (label, pixels)


def test_an_interval_thins_a_video(
    tiny_bundle: Bundle, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lines, log = run(capsys, tiny_bundle.path, clip, "--backend", "fake", "--interval", 0.5)
    assert [r["frame"] for r in lines] == [0, 10, 20, 30]
    assert "40 frames captured, 4 classified, 36 dropped" in log


def test_the_video_and_the_collected_frames_are_written(
    tiny_bundle: Bundle, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save = ("--save", tmp_path / "out.mp4")
    collect = ("--collect", tmp_path / "unsure", "--collect-below", 1.0)
    options = ("--variant", "fp32", *save, *collect)
    code, lines, _ = run(capsys, tiny_bundle.path, clip, *options)
    assert (code, len(lines)) == (0, 40)
    saved = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert sum(1 for _ in iter(lambda: saved.read()[0], False)) == 40
    assert saved.get(cv2.CAP_PROP_FPS) == 20.0
    index = (tmp_path / "unsure" / "index.jsonl").read_text()
    entries = [json.loads(line) for line in index.splitlines()]
    assert [entry["frame"] for entry in entries] == [0, 20]  # one a second
    assert all((tmp_path / "unsure" / entry["image"]).is_file() for entry in entries)


def test_a_disk_that_cannot_be_written_ends_the_run_with_its_error(
    tiny_bundle: Bundle, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".out.partial.mp4").mkdir()
    code, lines, log = run(
        capsys, tiny_bundle.path, clip, "--backend", "fake", "--save", tmp_path / "out.mp4"
    )
    assert code == 3
    assert [r["frame"] for r in lines] == list(range(len(lines)))
    assert "out.mp4" in log


@needs_serve
def test_the_live_page_is_served_while_the_run_goes_on(
    tiny_bundle: Bundle, tiny_data: Path
) -> None:
    photo = (tiny_data / "test" / "red" / "0.png").read_bytes()
    command = [*classify_command(tiny_bundle), "--serve", "127.0.0.1:0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        address = next(
            word for line in process.stderr for word in line.split() if word.startswith("http://")
        )
        process.stdout.readline()
        with urllib.request.urlopen(address, timeout=SOON_S) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{address}classify", data=photo, timeout=SOON_S) as answer:
            assert json.load(answer)["backend"] == "fake"
        if is_installed("prometheus_client"):
            with urllib.request.urlopen(f"{address}metrics", timeout=SOON_S) as answer:
                assert b"finedge_frames_captured_total{" in answer.read()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 130


@pytest.mark.parametrize(
    ("source", "options", "code", "text"),
    [
        ("gone.jpg", [], 4, "gone.jpg"),
        ("note.jpg", [], 4, "note.jpg"),
        ("note.mp4", [], 4, "note.mp4"),
        ("/dev/video99", [], 3, "/dev/video99"),
        ("ftp://host/x", [], 2, "clip.mp4"),
        ("photo.png", ["--interval", 1], 2, "--interval"),
        ("photo.png", ["--smooth", 1], 2, "--smooth"),
        ("photo.png", ["--smooth", -1], 2, "-1"),
        ("photo.png", ["--hold", -1], 2, "-1"),
        ("photo.png", ["--roi", "0,0,2000,1"], 2, "40x40"),
        ("photo.png", ["--roi", "zero"], 2, "zero"),
        ("photo.png", ["--width", 640, "--height", 480], 2, "width"),
        ("photo.png", ["photo.png"], 2, "none twice"),
        ("photo.png", ["--save", "out.gif"], 2, "out.gif"),
        ("photo.png", ["--collect", "unsure", "--collect-below", 2], 2, "--collect-below"),
        pytest.param("photo.png", ["--serve", "nowhere"], 2, "nowhere", marks=needs_serve),
        ("test://", ["--frames", 0], 2, "--frames"),
        ("test://", ["--stale-ms", 0], 2, "--stale-ms"),
        ("test://", ["--no-signal-ms", "nan"], 2, "--no-signal-ms"),
        ("test://", ["--interval", "nan"], 2, "--interval"),
        ("test://", ["--backend", "onnxruntim"], 2, "onnxruntime"),
        ("test://", ["--variant", "int4"], 2, "int8"),
    ],
)
def test_bad_input_has_its_exit_code_and_names_the_culprit(
    source: str,
    options: list[object],
    code: int,
    text: str,
    tiny_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("note.jpg", "note.mp4"):
        Path(name).write_text("milk, eggs")
    Image.new("RGB", (40, 40)).save("photo.png")
    exit_code, lines, log = run(capsys, tiny_bundle.path, source, *options)
    assert (exit_code, lines) == (code, [])
    assert text in log


def test_a_truncated_video_ends_with_exit_4_after_its_frames(
    tiny_bundle: Bundle, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (shared_data / "video" / "car-detection.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 8])
    code, lines, log = run(capsys, tiny_bundle.path, tmp_path / "cut.mp4", "--backend", "fake")
    assert code == 4
    assert [r["frame"] for r in lines] == list(range(len(lines)))
    assert f"ends after {len(lines)} of the 377 frames" in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_stream_with_whole_lines_and_exit_130(
    number: signal.Signals, tiny_bundle: Bundle
) -> None:
    command = classify_command(tiny_bundle)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(3)]
        process.send_signal(number)
        rest, log = process.communicate(timeout=60)
    lines = [json.loads(line) for line in (*first, *rest.splitlines())]
    assert process.returncode == 130
    assert rest == "" or rest.endswith("\n")
    assert f"{len(lines)} classified" in log
    assert "interrupted" in log


def test_a_reader_that_closes_the_pipe_is_no_error(tiny_bundle: Bundle) -> None:
    command = classify_command(tiny_bundle)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        json.loads(process.stdout.readline())
        process.stdout.close()
        log = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert "Traceback" not in log
