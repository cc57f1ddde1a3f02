from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from finedge.errors import UsageError
from finedge.runtime.sinks.base import Context, Outputs, Result
from finedge.runtime.sinks.systemd import Systemd, open_systemd

JETSON = Path(__file__).resolve().parents[2] / "jetson"
UNIT = JETSON / "finedge.service"
ANSWER = Result({"status": "ok", "top": [{"index": 1, "label": "dusky-finch", "p": 0.93}]})
SILENCE = Result({"status": "no_signal", "top": []})
CONTEXT = Context("birds", names=("test://",), fps=(30.0,), live=True, stop=lambda: None)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd opens for a unit with Type=notify."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as opened:
        opened.bind(str(tmp_path / "notify"))
        opened.settimeout(10)
        yield opened


def received(listener: socket.socket) -> list[str]:
    return listener.recv(4096).decode().split("\n")


def test_systemd_gets_ready_then_signs_of_life_then_stopping(
    listener: socket.socket,
) -> None:
    sink = Systemd(listener.getsockname(), interval_s=0)
    sink.write(ANSWER)
    sink.write(SILENCE)
    sink.close()
    assert received(listener) == ["READY=1", "WATCHDOG=1", "STATUS=ok: dusky-finch 93%"]
    assert received(listener) == ["READY=1", "WATCHDOG=1", "STATUS=no_signal"]
    assert received(listener) == ["STOPPING=1"]


def test_many_results_are_one_sign_of_life_an_interval(listener: socket.socket) -> None:
    sink = Systemd(listener.getsockname(), interval_s=3600)
    for _ in range(1000):
        sink.write(ANSWER)
    sink.close()
    assert received(listener)[0] == "READY=1"
    assert received(listener) == ["STOPPING=1"]


def test_an_abstract_socket_is_written_with_an_at_sign() -> None:
    name = f"finedge-test-{os.getpid()}"
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as opened:
        opened.bind("\0" + name)
        opened.settimeout(10)
        Systemd("@" + name).write(ANSWER)
        assert received(opened)[0] == "READY=1"


def test_a_listener_that_does_not_read_never_stops_the_run(
    listener: socket.socket, tmp_path: Path
) -> None:
    full, gone = (
        Systemd(listener.getsockname(), interval_s=0),
        Systemd(str(tmp_path / "nobody"), interval_s=0),
    )
    for _ in range(5000):  # far past what a datagram socket queues
        full.write(ANSWER)
        gone.write(ANSWER)
    full.close()
    gone.close()


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 1.0),
        ({"WATCHDOG_USEC": "500000"}, 0.25),
        ({"WATCHDOG_USEC": "?"}, 1.0),
    ],
)
def test_the_watchdogs_time_sets_the_interval(
    environment: dict[str, str], interval_s: float | None, listener: socket.socket
) -> None:
    sink = open_systemd(
        Outputs(), CONTEXT, environment={"NOTIFY_SOCKET": listener.getsockname(), **environment}
    )
    assert sink is not None
    assert sink.interval_s == (interval_s or 1.0)
    sink.close()


def test_an_interval_longer_than_the_watchdogs_is_refused(
    listener: socket.socket,
) -> None:
    environment = {"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "60000000"}
    with pytest.raises(UsageError, match="WatchdogSec=180"):
        open_systemd(Outputs(), replace(CONTEXT, quiet_s=90), environment=environment)
    sink = open_systemd(Outputs(), replace(CONTEXT, quiet_s=59), environment=environment)
    assert sink is not None
    sink.close()


@pytest.mark.parametrize(
    "environment",
    [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"WATCHDOG_USEC": "1"}],
)
def test_without_systemd_there_is_no_sink(environment: dict[str, str]) -> None:
    assert open_systemd(Outputs(), CONTEXT, environment=environment) is None


def test_a_run_under_systemd_says_ready_and_stopping(listener: socket.socket) -> None:
    bundle = JETSON.parent / "examples" / "birds.finedge"
    command = [sys.executable, "-m", "finedge", "classify", str(bundle), "test://", "--frames", "2"]
    process = subprocess.run(
        command,
        env={**os.environ, "NOTIFY_SOCKET": listener.getsockname()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert received(listener)[:2] == ["READY=1", "WATCHDOG=1"]
    assert received(listener) == ["STOPPING=1"]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: apt-get install systemd")
    command = tmp_path / "finedge"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    unit = tmp_path / "finedge.service"
    unit.write_text(UNIT.read_text().replace("/opt/finedge/bin/finedge", str(command)))
    process = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


MAX_EXPOSURE = 2.0  # of 10, by systemd's own count


def test_systemd_rates_the_unit_as_well_protected() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: apt-get install systemd")
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", str(UNIT)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in process.stderr:
        pytest.skip("this systemd-analyze reads no unit file offline (it is older than 250)")
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", process.stdout)
    assert exposure is not None, process.stderr
    assert float(exposure[1]) <= MAX_EXPOSURE


@pytest.mark.parametrize(
    "label", ["a\nMAINPID=1\nSTOPPING=1", "\x1b[2J", "\ud800", "a" * 100_000, "\u2028\u202e"]
)
def test_a_label_cannot_send_other_messages_to_systemd(label: str, listener: socket.socket) -> None:
    sink = Systemd(listener.getsockname(), interval_s=0)
    sink.write(Result({"status": "ok", "top": [{"index": 1, "label": label, "p": 0.93}]}))
    lines = received(listener)
    assert lines[:2] == ["READY=1", "WATCHDOG=1"]
    assert len(lines) == 3
    assert lines[2].startswith("STATUS=ok: ")
    assert lines[2].isprintable()
    assert len(lines[2]) < 1000
    sink.close()


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify",
        "WatchdogSec=60",
        "Restart=always",
        "DynamicUser=yes",
        "SupplementaryGroups=video render",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "PrivateTmp=yes",
        "BindPaths=-/tmp/argus_socket",
        "DevicePolicy=closed",
        "SystemCallFilter=@system-service",
        "SystemCallErrorNumber=EPERM",
        "ProtectKernelTunables=yes",
        "UMask=0077",
        "MemoryMax=75%",
        "EnvironmentFile=/etc/finedge/finedge.env",
    ],
)
def test_the_unit_is_watched_limited_and_unprivileged(line: str) -> None:
    assert line in UNIT.read_text().splitlines()


def test_the_settings_file_has_every_variable_of_the_unit() -> None:
    settings = dict(
        line.split("=", 1)
        for line in (JETSON / "finedge.env").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    (command,) = (line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart="))
    assert list(settings) == ["FINEDGE_BUNDLE", "FINEDGE_SOURCES", "FINEDGE_OPTIONS"]
    assert command.endswith("classify ${FINEDGE_BUNDLE} $FINEDGE_SOURCES $FINEDGE_OPTIONS")
