"""The lines of `finedge classify` on a terminal."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from finedge.runtime.sinks.base import Context, Result
from finedge.runtime.sinks.text_lines import TextLines
from finedge.synthetic.command import encoded_image
from tests.finedge.in_terminal import ROOT, in_terminal, plain

BUNDLE = str(ROOT / "examples" / "birds.finedge")


def record(**changes: Any) -> dict[str, Any]:
    top = [{"index": i, "label": f"label{i}", "p": p} for i, p in enumerate((0.9, 0.06, 0.04))]
    stages = {"decode": 1.0, "preprocess": 2.0, "infer": 3.0, "post": None}
    times = {"captured_at": "2026-01-02T03:04:05.678Z", "age_ms": 9.0, "ms": stages}
    line = {"source": "photos/a.jpg", "frame": 7, "status": "ok", "top": top}
    return {**line, **times, **changes}


def lines(*results: Result, names: tuple[str, ...] = ("a",), live: bool = False, width: int = 80):
    file = io.StringIO()
    context = Context("birds", names, (None,) * len(names), live, stop=lambda: None)
    sink = TextLines(context, Console(file=file, width=width, highlight=False))
    for result in results:
        sink.write(result)
    sink.close()
    return file.getvalue().splitlines()


def test_a_photo_has_name_label_probability_and_time():
    (line,) = lines(Result(record()))
    words = " ".join(line.split())
    assert words == "photos/a.jpg label0 90.0 % 6.0 ms label1 6.0 % label2 4.0 %"


def test_further_labels_fill_the_line_only_as_far_as_it_goes():
    (line,) = lines(Result(record()), width=60)
    assert "label1" in line
    assert "label2" not in line


def test_a_line_that_is_too_long_stays_one_line():
    (line,) = lines(Result(record(source="x" * 100)), width=40)
    assert line.endswith("6.0 ms")


def test_a_frame_of_a_camera_has_its_time_and_of_a_video_its_number():
    (camera,) = lines(Result(record(), seconds=0.5), live=True)
    (video,) = lines(Result(record(), seconds=0.5))
    assert ":04:05.678" in camera.split()[0]
    assert video.split()[:2] == ["frame", "7"]


def test_of_several_sources_each_line_names_its_own():
    results = (Result(record(source=name), seconds=0.5) for name in ("cam0", "cam1"))
    assert [line.split()[0] for line in lines(*results, names=("cam0", "cam1"))] == ["cam0", "cam1"]


@pytest.mark.parametrize("status", ["unknown", "stale"])
def test_a_status_stands_before_the_label(status):
    (line,) = lines(Result(record(status=status)))
    assert line.split()[1:3] == [status, "label0"]


def test_a_silence_has_no_label():
    silence = record(status="no_signal", source="cam0", top=[], captured_at=None, frame=None)
    (line,) = lines(Result(silence), live=True)
    assert line.split()[1:] == ["no", "signal"]


def test_columns_are_aligned_to_the_longest_so_far():
    first, second = lines(Result(record(source="a_long_name.jpg")), Result(record(source="b.jpg")))
    assert first.index("label0") == second.index("label0")


def test_labels_and_names_have_no_power_over_the_terminal():
    top = [{"index": 0, "label": "[red]a\x1b[2J", "p": 1.0}]
    (line,) = lines(Result(record(source="\x1b]0;x\x07.jpg", top=top)))
    assert "\x1b" not in line
    assert "[red]a" in line


@pytest.fixture
def photos(tmp_path):
    for index in range(2):
        (tmp_path / f"{index}.jpg").write_bytes(encoded_image((2, 0, index), size=64, seed=0))
    return tmp_path


def test_classify_writes_lines_on_a_terminal_and_json_in_a_pipe(photos):
    words = ("-m", "finedge", "classify", BUNDLE, str(photos), str(photos / "0.jpg"), "--topk", "1")
    code, out, err = in_terminal(*words, columns=200)
    assert code == 0, err
    shown = plain(out).splitlines()
    assert len(shown) == 3
    assert all(line.startswith(str(photos)) for line in shown)
    assert all("%" in line and "ms" in line for line in shown)
    piped = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    asked = in_terminal(*words, "--json", columns=200)[1]
    for text in (piped.stdout, asked):
        records = [json.loads(line) for line in text.splitlines()]
        assert len(records) == 3
        assert all(len(r["top"]) == 1 for r in records)
