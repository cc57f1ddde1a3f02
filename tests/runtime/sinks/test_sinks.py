from __future__ import annotations

import copy
import json
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from finedge.errors import SystemProblem
from finedge.runtime.sinks import SINKS, Context, Outputs, Result, Sink
from finedge.runtime.sinks.queued import SIZE, QueuedSink

MakeResult = Callable[..., Result]
SOON_S = 10.0
CONTEXT = Context("tiny", names=("cam0", "cam1"), fps=(25.0, None), live=True, stop=lambda: None)


def everything(folder: Path) -> Outputs:
    return Outputs(
        save=folder / "out.mp4",
        show=True,
        collect=folder / "unsure",
        collect_below=0.95,
        serve="127.0.0.1:0",
    )


def opened(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Sink:
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody")
    try:
        sink = SINKS[name](everything(folder), CONTEXT)
    except SystemProblem as reason:
        pytest.skip(str(reason))
    assert sink is not None
    return sink


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_takes_every_kind_of_result_and_changes_none(
    name: str, make_result: MakeResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [
        make_result(p=None),
        make_result(0),
        make_result(1, status="unknown", unknown=True),
        make_result(5, size=(31, 57), status="stale"),
        make_result(6, label="Ärtsoppa / 日本"),
        make_result(7, roi=[3, 4, 20, 30], raw_top=[]),
        make_result(0, stream=1, seconds=None, source="photos/a.jpg"),
        make_result(p=None, stream=1),
    ]
    before = copy.deepcopy(results)
    sink = opened(name, tmp_path, monkeypatch)
    try:
        for result in results:
            sink.write(result)
    finally:
        sink.close()
    for result, old in zip(results, before, strict=True):
        assert result.record == old.record
        assert old.image is None or (result.image == old.image).all()


@pytest.mark.parametrize("name", SINKS)
def test_a_run_without_a_result_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(name, tmp_path, monkeypatch)
    sink.close()
    assert list(tmp_path.rglob("*.*")) == []


@pytest.mark.parametrize("name", [n for n in SINKS if n != "jsonl"])
def test_what_is_not_asked_for_is_not_opened(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert SINKS[name](Outputs(), CONTEXT) is None


def test_the_pages_token_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = pytest.importorskip(
        "finedge.runtime.sinks.live.page", reason="the extra [serve] is not installed"
    )
    monkeypatch.setenv("FINEDGE_TOKEN", "0123456789abcdef-environment")
    page = SINKS["live"](Outputs(serve="127.0.0.1:0"), CONTEXT)
    try:
        assert isinstance(page, live.LivePage)
        browser = build_opener(HTTPCookieProcessor())
        with pytest.raises(HTTPError, match="401"):
            browser.open(page.url, timeout=SOON_S)
        browser.open(f"{page.url}?token=0123456789abcdef-environment", timeout=SOON_S).close()
    finally:
        page.close()


def test_a_page_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "finedge.runtime.sinks.live.page", None)
    with pytest.raises(SystemProblem, match=re.escape("finedge[serve]")):
        SINKS["live"](Outputs(serve="127.0.0.1:0"), CONTEXT)


def test_a_result_is_one_json_line(
    make_result: MakeResult, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = SINKS["jsonl"](Outputs(), CONTEXT)
    assert sink is not None
    results = [make_result(0), make_result(p=None)]
    for result in results:
        sink.write(result)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        r.record for r in results
    ]


class Gated:
    """A sink that writes only while `gate` is open, and fails at frame `bad`."""

    def __init__(self, *, bad: int = -1) -> None:
        self.gate, self.bad, self.closed = threading.Event(), bad, False
        self.frames: list[int] = []

    def write(self, result: Result) -> None:
        self.gate.wait(SOON_S)
        if result.record["frame"] == self.bad:
            raise OSError(28, "No space left on device")
        self.frames.append(result.record["frame"])

    def close(self) -> None:
        self.closed = True


def test_a_slow_sink_of_a_live_run_drops_and_counts_and_never_waits(
    make_result: MakeResult, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Gated()
    queued = QueuedSink(slow, name="slow", drop=True)
    for frame in range(50):
        queued.write(make_result(frame))  # would hang here
    slow.gate.set()
    queued.close()
    assert slow.frames == sorted(slow.frames)
    assert len(slow.frames) in (SIZE, SIZE + 1)
    assert queued.dropped == 50 - len(slow.frames)
    assert f"{queued.dropped} frames" in caplog.text
    assert slow.closed


def test_a_slow_sink_of_files_gets_every_frame(make_result: MakeResult) -> None:
    slow = Gated()
    queued = QueuedSink(slow, name="slow", drop=False)
    threading.Timer(0.05, slow.gate.set).start()
    for frame in range(50):
        queued.write(make_result(frame))
    queued.close()
    assert (slow.frames, queued.dropped) == (list(range(50)), 0)


def test_an_error_in_the_queues_thread_is_raised_by_write_and_close(
    make_result: MakeResult,
) -> None:
    failing = Gated(bad=3)
    failing.gate.set()
    queued = QueuedSink(failing, name="failing", drop=False)
    bad = make_result(3)
    with pytest.raises(SystemProblem, match=r"--failing: .*No space"):
        [queued.write(bad) for _ in range(10_000)]
    with pytest.raises(SystemProblem, match="No space"):
        queued.close()
    assert failing.closed
