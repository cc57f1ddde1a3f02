"""A real RTSP server is killed and started again many times, then watched for long. JSON on stdout.

    python -m benchmarks.soak.rtsp [--cycles 100] [--seconds 3600] [--state rtsp-soak.json]

It needs the Debian packages of tests/apt.txt. The state file keeps the results after every cycle
and every minute: start the script again and it continues. It checks that:

- after each return the first picture comes within 2 s after the server listens;
- no frame number is missing or doubled over a loss;
- every picture has the server's colour;
- the long watch loses nothing and grows by less than 5 MiB.

Exit code 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak.watched import MAX_GROWTH_MIB, resident_mib
from finedge.files import write_text
from finedge.measure import percentile
from finedge.runtime.sources import Frame, open_source
from finedge.runtime.sources.reconnect import ReconnectingSource
from finedge.runtime.stream.stream import Stream
from finedge.runtime.telemetry.environment import environment

SERVER = Path(__file__).parents[2] / "tests" / "runtime" / "sources" / "rtsp_server.py"
COLOUR, TOLERANCE = (0, 160, 0), 20
MAX_RETURN_S = 2.0
BETWEEN_FRAMES = 20  # of a cycle
AWAY_S = (0.1, 4.0)
CHUNK_S = 60.0
NEW = {
    "cycles": [],
    "watched_s": 0.0,
    "frames": 0,
    "losses": 0,
    "silences": 0,
    "ages_ms_p95": [],
    "mib": [],
    "unreal": 0,
    "wrong_number": 0,
}


class Server:
    """The test server; `since` is when it listened, on the monotonic clock."""

    def __init__(self) -> None:
        self.port, self.since = 0, 0.0
        self.start()

    def start(self) -> None:
        """Start it at the port it had, and wait until it listens."""
        command = ["/usr/bin/python3", str(SERVER), "--port", str(self.port), "--size", "640x480"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            sys.exit("the RTSP server did not start; see tests/apt.txt")
        self.port, self.since = int(line), time.monotonic()

    def kill(self) -> None:
        """Kill it; its clients get no message."""
        self._process.kill()
        self._process.communicate()

    def restart_after(self, seconds: float) -> threading.Thread:
        """Kill it now and start it later; the thread ends when it listens."""
        self.kill()
        timer = threading.Timer(seconds, self.start)
        timer.start()
        return timer


def is_real(frame: Frame) -> bool:
    """Tell whether a picture has the server's colour."""
    return bool(np.abs(frame.image.reshape(-1, 3).mean(0) - COLOUR).max() < TOLERANCE)


def cycle(
    frames: Iterator[Frame],
    source: ReconnectingSource,
    *,
    server: Server,
    state: dict[str, Any],
    last: int,
) -> int:
    """Watch, kill, let it return, time the first picture; return the last frame's number."""
    losses, seen, timer = source.losses, 0, None
    for frame in frames:
        state["wrong_number"] += frame.index != last + 1
        state["unreal"] += not is_real(frame)
        last, seen = frame.index, seen + 1
        if source.losses > losses:
            break
        if seen == BETWEEN_FRAMES:
            away_s = random.uniform(*AWAY_S)
            timer = server.restart_after(away_s)
    returned = time.monotonic()
    if timer is not None:
        timer.join()
        state["cycles"].append(
            {"away_s": round(away_s, 2), "first_picture_s": round(returned - server.since, 3)}
        )
    return last


def watch(source: ReconnectingSource, state: dict[str, Any], *, seconds: float, save: Path) -> None:
    """Watch by `Stream`, as classify does, and keep the sums of every minute."""
    ages: list[float] = []
    begun = chunk = time.monotonic()
    with Stream(source) as stream:
        for frame in stream:
            if frame is None:
                state["silences"] += 1
            else:
                state["frames"] += 1
                state["unreal"] += not is_real(frame)
                ages.append((time.monotonic_ns() - frame.captured_ns) / 1e6)
            now = time.monotonic()
            if now - chunk >= min(CHUNK_S, seconds) or now - begun >= seconds:
                state["watched_s"] += now - chunk
                state["ages_ms_p95"].append(round(percentile(ages, 95), 2) if ages else None)
                state["mib"].append(round(resident_mib(), 1))
                state["losses"] += source.losses
                source.losses = 0
                write_text(save, json.dumps(state))
                chunk, ages = now, []
            if now - begun >= seconds:
                source.close()
                return


def verdict(state: dict[str, Any], *, cycles: int, seconds: float) -> dict[str, bool]:
    """Return which checks hold."""
    firsts = [c["first_picture_s"] for c in state["cycles"]]
    mib = state["mib"]
    filled = mib[min(5, len(mib) - 1)] if mib else 0.0  # the first minutes fill caches
    in_time = all(first_s <= MAX_RETURN_S for first_s in firsts)
    return {
        "every_return_within_2_s": len(firsts) >= cycles and in_time,
        "no_number_missing_or_doubled": state["wrong_number"] == 0,
        "every_picture_real": state["unreal"] == 0,
        "watched_without_loss": state["watched_s"] >= seconds - 1 and state["losses"] == 0,
        "no_growth": len(mib) < 2 or mib[-1] - filled < MAX_GROWTH_MIB,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--via", default="ffmpeg", choices=["ffmpeg", "gstreamer"])
    parser.add_argument("--state", type=Path, default=Path("rtsp-soak.json"))
    options = parser.parse_args()
    state: dict[str, Any] = (
        json.loads(options.state.read_text())
        if options.state.exists()
        else {"environment": environment(), **json.loads(json.dumps(NEW))}
    )
    server = Server()
    try:
        run(options, state, server=server)
    finally:
        server.kill()
    passed = verdict(state, cycles=options.cycles, seconds=options.seconds)
    print(json.dumps({"schema": 1, "via": options.via, **state, "pass": passed}, indent=1))
    return 0 if all(passed.values()) else 1


def run(options: argparse.Namespace, state: dict[str, Any], *, server: Server) -> None:
    """Run the cycles and the long watch that are missing in the state."""
    uri = f"rtsp://127.0.0.1:{server.port}/cam"
    with open_source(uri, via=options.via) as source:
        assert isinstance(source, ReconnectingSource)
        frames, last = iter(source), -1
        while len(state["cycles"]) < options.cycles:
            last = cycle(frames, source, server=server, state=state, last=last)
            write_text(options.state, json.dumps(state))
            print(f"cycle {len(state['cycles'])}: {state['cycles'][-1]}", file=sys.stderr)
    if state["watched_s"] < options.seconds - 1:
        with open_source(uri, via=options.via) as source:
            assert isinstance(source, ReconnectingSource)
            watch(source, state, seconds=options.seconds - state["watched_s"], save=options.state)


if __name__ == "__main__":
    sys.exit(main())
