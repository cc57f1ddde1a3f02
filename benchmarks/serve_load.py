"""Load on `finedge serve` and on Triton: images a second, latency, and CPU time an image.

    python -m benchmarks.serve_load [--bundle DIR] [--photos DIR] [--seconds S] [--blocks N]

Each server runs the same bundle as a process of its own, started once. Clients are threads of this
process, each with one connection, and send the next picture when the last is answered. Clients and
servers share the cores of the machine. The servers take turns in blocks, in a new order each time.
A row holds the medians over the blocks. `cpu_ms` is the CPU time of the server's processes for an
image, which other programs on the machine disturb least. `direct` is the floor: `Classifier` called
in a loop, picture by picture, with the decoding of the files.

tritonserver comes from the wheel that tests/jetson/serve_config uses; without it there is no row.
Rows are written to benchmarks/results/serve/BUNDLE-VARIANT.jsonl, and printed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from finedge.bundle import Bundle
from finedge.image import read_image
from finedge.jetson.serve_config.command import serve_config
from finedge.jetson.serve_config.triton import model_name
from finedge.measure import percentile
from finedge.runtime.classifier import Classifier
from finedge.runtime.machine.cpu import cpu_name, owned_cores
from finedge.runtime.telemetry.environment import commit
from finedge.synthetic.command import render
from finedge.terminal import console
from tests.jetson.serve_config.triton_server import TritonServer, home, running
from tests.wheels import WheelMissing

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results" / "serve"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
Ask = Callable[[bytes], None]


@dataclass
class Target:
    """What is asked.

    `open_client` gives a function that sends a picture and waits for its answer; it raises where
    the answer is an error. `pids` are the server's processes; none is this process.
    """

    name: str
    settings: dict[str, Any]
    open_client: Callable[[], Ask]
    pids: Callable[[], list[int]]
    clients: tuple[int, ...]
    blocks: dict[int, list[dict[str, float]]] = field(default_factory=dict)


def main(
    bundle: Path = ROOT / "examples" / "birds.finedge",
    photos: Path | None = None,
    variant: str = "int8",
    seconds: float = 4.0,
    blocks: int = 3,
    clients: tuple[int, ...] = (1, 8),
) -> None:
    """Measure all servers that run here.

    Args:
        bundle: the bundle to serve.
        photos: JPEG files; without them, birds are rendered.
        variant: of the bundle.
        seconds: of a block.
        blocks: of each server and number of clients.
        clients: numbers of clients.
    """
    with tempfile.TemporaryDirectory() as work, contextlib.ExitStack() as exits:
        files = _photos(photos or _rendered(Path(work)))
        targets = [
            _direct(exits, bundle, variant),
            _finedge(exits, bundle, variant, batch=1, clients=clients),
            _finedge(exits, bundle, variant, batch=8, clients=clients),
        ]
        with contextlib.suppress(WheelMissing):
            targets.append(_triton(exits, bundle, variant, work=Path(work), clients=clients))
        for target in targets:
            target.open_client()(files[0])
        for number in range(blocks):
            order = [(target, count) for target in targets for count in target.clients]
            random.Random(number).shuffle(order)
            for target, count in order:
                block = _block(target, files, clients=count, seconds=seconds)
                target.blocks.setdefault(count, []).append(block)
        rows = [_row(target, count, bundle) for target in targets for count in target.clients]
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (RESULTS / f"{Bundle.load(bundle).name}-{variant}.jsonl").write_text(text)
    console().print(text)


def _rendered(work: Path) -> Path:
    render(work / "photos", train=1, val=1, test=5)
    return work / "photos" / "test"


def _photos(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:200]]


def _direct(exits: contextlib.ExitStack, bundle: Path, variant: str) -> Target:
    classifier = exits.enter_context(Classifier.open(bundle, variant=variant))
    place = Path(exits.enter_context(tempfile.TemporaryDirectory())) / "photo.jpg"

    def ask(file: bytes) -> None:
        place.write_bytes(file)
        classifier([read_image(place)])

    return Target("direct", {}, lambda: ask, lambda: [os.getpid()], (1,))


def _finedge(
    exits: contextlib.ExitStack,
    bundle: Path,
    variant: str,
    *,
    batch: int,
    clients: tuple[int, ...],
) -> Target:
    command = [sys.executable, "-m", "finedge", "serve", str(bundle), "--address", "127.0.0.1:0"]
    command += ["--variant", variant, "--batch", str(batch)]
    process = exits.enter_context(
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    )
    exits.callback(process.terminate)
    assert process.stderr is not None
    port = int(next(re.findall(r":(\d+)/classify", line)[0] for line in _until(process.stderr)))

    def open_client() -> Ask:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

        def ask(file: bytes) -> None:
            connection.request("POST", "/classify", file)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise RuntimeError(content.decode())

        return ask

    settings = {"batch": batch, "wait_ms": 2.0}
    return Target("finedge serve", settings, open_client, lambda: [process.pid], clients)


def _until(log: Iterator[str]) -> Iterator[str]:
    return (line for line in log if "/classify" in line)


def _triton(
    exits: contextlib.ExitStack,
    bundle: Path,
    variant: str,
    *,
    work: Path,
    clients: tuple[int, ...],
) -> Target:
    (work / "home").mkdir()
    place = home(work / "home")
    serve_config("triton", bundle, out=work / "models", variant=variant)
    model = model_name(Bundle.load(bundle), f"{variant}_images")
    server = exits.enter_context(running(place, work / "models", model))

    def open_client() -> Ask:
        client = TritonServer(server.port, server.model)

        def ask(file: bytes) -> None:
            status, record = client.infer([file])
            if status != 200:
                raise RuntimeError(str(record))

        return ask

    settings = {"batch": 8, "wait_ms": 2.0, "version": "2.51.0"}
    return Target(
        "tritonserver", settings, open_client, lambda: _below(os.getpid(), "triton"), clients
    )


def _below(pid: int, word: str) -> list[int]:
    """Return the processes below `pid` whose command holds `word`."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    lines = [line.split(None, 2) for line in listed.stdout.splitlines()]
    family = {pid}
    for own, parent, _ in lines:
        if int(parent) in family:
            family.add(int(own))
    return [int(own) for own, _, text in lines if int(own) in family - {pid} and word in text]


def _cpu_s(pids: Sequence[int]) -> float:
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
    return total


def _block(
    target: Target, files: Sequence[bytes], *, clients: int, seconds: float
) -> dict[str, float]:
    """Return the rate, the latencies and the CPU time of one block."""
    latencies: list[float] = []
    pids, until = target.pids(), time.monotonic() + seconds

    def run(number: int) -> None:
        ask, place = target.open_client(), number
        while (start := time.monotonic()) < until:
            ask(files[place % len(files)])
            latencies.append(1e3 * (time.monotonic() - start))
            place += clients

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    before, start = _cpu_s(pids), time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed_s, cpu_s = time.monotonic() - start, _cpu_s(pids) - before
    return {
        "images": len(latencies),
        "images_per_s": len(latencies) / passed_s,
        "p50_ms": percentile(latencies, 50),
        "p95_ms": percentile(latencies, 95),
        "cpu_ms": 1e3 * cpu_s / len(latencies),
    }


def _row(target: Target, clients: int, bundle: Path) -> dict[str, Any]:
    blocks = target.blocks[clients]
    medians = {
        key: round(statistics.median(block[key] for block in blocks), 2)
        for key in ("images_per_s", "p50_ms", "p95_ms", "cpu_ms")
    }
    return {
        "server": target.name,
        **target.settings,
        "clients": clients,
        "blocks": len(blocks),
        "images": int(sum(block["images"] for block in blocks)),
        **medians,
        "bundle": Bundle.load(bundle).name,
        "cpu": cpu_name(),
        "cores": owned_cores(),
        "load_before": round(os.getloadavg()[0], 1),
        "commit": commit(),
    }


if __name__ == "__main__":
    tyro.cli(main)
