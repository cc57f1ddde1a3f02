from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finedge.bundle import Bundle
from finedge.cli import main
from finedge.runtime.classifier import Classifier
from finedge.runtime.classify import Watch
from finedge.runtime.fake import FakeBackend
from finedge.runtime.sources import Frame

KEYS = ["schema", "source", "frame", "status", "captured_at", "age_ms", "top", "ms", "variant", "backend", "file"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in {"a": (210, 30, 40), "b": (30, 50, 210), "c": (240, 240, 240)}.items():
        Image.new("RGB", (60, 48), colour).save(folder / f"{name}.png")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    code = main(["classify", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_a_folder_gives_one_line_an_image_with_the_right_label(tiny_bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = run(capsys, tiny_bundle.path, photos, "--variant", "fp32", "--topk", 2)
    assert code == 0
    assert [(Path(r["source"]).name, r["frame"], r["top"][0]["label"]) for r in lines] == [("a.png", 0, "red"), ("b.png", 1, "blue"), ("c.png", 2, "white")]
    for record in lines:
        assert sorted(record) == sorted(KEYS)
        assert sorted(record["ms"]) == ["decode", "infer", "post", "preprocess"]
        assert [sorted(t) for t in record["top"]] == [["index", "label", "p"]] * 2
        assert 0 <= record["top"][1]["p"] <= record["top"][0]["p"] <= 1
        assert (record["schema"], record["status"], record["variant"], record["backend"], record["file"]) == (1, "ok", "fp32", "onnxruntime", "model.fp32.onnx")
        assert record["age_ms"] >= record["ms"]["preprocess"] + record["ms"]["infer"]
        captured = datetime.fromisoformat(record["captured_at"].replace("Z", "+00:00"))
        assert captured.utcoffset() == timezone.utc.utcoffset(None)
        assert abs((datetime.now(timezone.utc) - captured).total_seconds()) < 600


def test_the_file_that_runs_is_in_every_line(tiny_bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines, _ = run(capsys, tiny_bundle.path, photos / "a.png")
    assert [(r["variant"], r["file"]) for r in lines] == [("int8", "model.int8.cpu.onnx")]


def test_a_live_source_stops_after_the_frames_asked_for_and_sums_up(tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, log = run(capsys, tiny_bundle.path, "test://", "--backend", "fake", "--frames", 3, "--stale-ms", 60_000)
    assert code == 0
    assert [r["status"] for r in lines] == ["ok"] * 3
    assert lines[0]["frame"] < lines[1]["frame"] < lines[2]["frame"]
    assert "3 classified" in log


def test_a_live_answer_that_comes_too_late_is_stale(tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines, _ = run(capsys, tiny_bundle.path, "test://", "--backend", "fake", "--frames", 1, "--stale-ms", 1e-6)
    assert [(r["status"], len(r["top"])) for r in lines] == [("stale", 5)]


def test_a_file_is_never_stale(tiny_bundle: Bundle, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines, _ = run(capsys, tiny_bundle.path, photos, "--stale-ms", 1e-6)
    assert {r["status"] for r in lines} == {"ok"}


def test_silence_is_a_record_and_never_reaches_the_model(tiny_bundle: Bundle) -> None:
    backend = FakeBackend()
    classifier = Classifier(tiny_bundle, backend.open(tiny_bundle, variant="fp32"), "fp32")
    frame = Frame(7, 0, np.zeros((40, 40, 3), np.uint8), "cam", 0.0)
    records = list(Watch(classifier, "cam", stale_ms=float("inf")).records([None, frame, None]))
    assert [(r["status"], r["frame"], r["captured_at"] is None, r["top"] == []) for r in records] == [
        ("no_signal", None, True, True),
        ("ok", 7, False, False),
        ("no_signal", None, True, True),
    ]
    assert all(sorted(r) == sorted(KEYS) for r in records)
    assert len(backend.inputs) == 1


@pytest.mark.parametrize(
    ("source", "options", "code", "text"),
    [
        ("gone.jpg", [], 4, "gone.jpg"),
        ("note.jpg", [], 4, "note.jpg"),
        ("note.mp4", [], 4, "note.mp4"),
        ("/dev/video99", [], 3, "/dev/video99"),
        ("rtsp://host/x", [], 2, "clip.mp4"),
        ("test://", ["--frames", 0], 2, "--frames"),
        ("test://", ["--stale-ms", 0], 2, "--stale-ms"),
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
    found, lines, log = run(capsys, tiny_bundle.path, source, *options)
    assert (found, lines) == (code, [])
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
def test_a_signal_ends_a_stream_with_whole_lines_a_summary_and_130(number: signal.Signals, tiny_bundle: Bundle) -> None:
    command = [sys.executable, "-m", "finedge", "classify", str(tiny_bundle.path), "test://", "--backend", "fake"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
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
    command = [sys.executable, "-m", "finedge", "classify", str(tiny_bundle.path), "test://", "--backend", "fake"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        json.loads(process.stdout.readline())
        process.stdout.close()
        log = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert "Traceback" not in log
