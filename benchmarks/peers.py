"""Bare ONNX Runtime, OpenVINO and torch.compile beside ours, on the same files and frames.

    python -m benchmarks.peers BUNDLE [--threads 1] [--rounds 20] [--no-torch] [--realtime]

All readers are open in one process and take turns in bursts, in another order in every round. A row
has wall and CPU milliseconds of one frame, from the prepared frame (uint8) to the scores. CPU time
is that of the whole process: with one thread it is the time that the frame takes on a machine
without other programs. The share of the peak compares the multiply-accumulates of the model, per
second of CPU time, with those of one core (`benchmarks/cpu/int8_peak.c`), measured in every round.

`--realtime` (root) makes other programs wait while the readers are timed: wall time means nothing
on a busy machine otherwise.

The summary has the fastest reader, and how much slower `auto` is: the median over the rounds of the
ratio of the two. Rows are in benchmarks/results/peers/BUNDLE-threadsN.json.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tyro.conf import Positional

from benchmarks.cpu.int8_peak import Int8Peak, NoPeak, int8_peak
from benchmarks.peer_readers import AUTO, Batch, Peer, open_auto, open_peers
from benchmarks.realtime import realtime as priority
from finedge.bundle import Bundle
from finedge.files import write_text
from finedge.preprocess import preprocess
from finedge.runtime.benchmark.frames import rendered_frames
from finedge.runtime.telemetry.environment import environment

RESULTS = Path(__file__).resolve().parent / "results/peers"
FRAMES = 8
# At the start of a burst: the reader before it left its own weights in the caches, and its threads
# may still spin.
UNRECORDED = 2
MIN_QUERIES, BURST_S = 3, 0.15
TARGET = 1.05  # `auto` may take 5 % longer than the fastest reader


@dataclass
class Lane:
    """A reader and its times in milliseconds, a list for each burst."""

    peer: Peer
    wall_ms: list[list[float]] = field(default_factory=list)
    cpu_ms: list[list[float]] = field(default_factory=list)

    def burst(self, batches: Sequence[Batch]) -> None:
        """Ask for frames one after another, for `BURST_S` seconds."""
        for batch in batches[:UNRECORDED]:
            self.peer.answer(batch)
        wall: list[float] = []
        cpu: list[float] = []
        until = time.perf_counter() + BURST_S
        while len(wall) < MIN_QUERIES or time.perf_counter() < until:
            start, start_cpu = time.perf_counter(), time.process_time()
            self.peer.answer(batches[len(wall) % len(batches)])
            cpu.append(1e3 * (time.process_time() - start_cpu))
            wall.append(1e3 * (time.perf_counter() - start))
        self.wall_ms.append(wall)
        self.cpu_ms.append(cpu)

    def medians(self, clock: str) -> list[float]:
        """Return the median of each burst, by wall or by CPU time."""
        bursts = self.wall_ms if clock == "wall" else self.cpu_ms
        return [statistics.median(burst) for burst in bursts]


def main(
    bundle: Positional[Path],
    *,
    threads: int = 1,
    rounds: int = 20,
    torch: bool = True,
    realtime: bool = False,
    results: Path = RESULTS,
) -> None:
    """Time all readers in turns; write and print the rows."""
    loaded = Bundle.load(bundle)
    frames = rendered_frames(FRAMES).frames
    batches = [preprocess(frame, loaded.spec.preprocess)[None] for frame in frames]
    with priority(realtime):  # it may time the variants now
        auto = open_auto(loaded, threads=threads)
    others = open_peers(loaded, threads=threads, with_torch=torch)
    lanes = [Lane(peer) for peer in (auto, *others)]
    for lane in lanes:  # compiles, allocates
        lane.peer.answer(batches[0])
    peak, reason = peak_or_reason()
    with priority(realtime):
        peaks = interleave(lanes, batches, rounds=rounds, peak=peak)
    gmacs = statistics.median(peaks) if peaks else None
    record = {
        "environment": environment(),
        "bundle": loaded.name,
        "digest": loaded.digest(),
        "model": f"{loaded.spec.model} {loaded.spec.backbone} {loaded.spec.input.width} px",
        "threads": threads,
        "rounds": rounds,
        "realtime": realtime,
        "peak": reason or {"instruction": peak and peak.instruction, "gmacs_one_core": gmacs},
        "summary": {clock: summary(lanes, clock) for clock in ("cpu", "wall")},
        "rows": rows(lanes, loaded, batches, peak_gmacs=gmacs if threads == 1 else None),
    }
    path = results / f"{loaded.name}-threads{threads}.json"
    write_text(path, json.dumps(record, indent=1) + "\n")
    json.dump(record, sys.stdout, indent=1)


def peak_or_reason() -> tuple[Int8Peak | None, str]:
    """Return the loop that measures the peak, or why there is none."""
    try:
        return int8_peak(), ""
    except NoPeak as reason:
        return None, str(reason)


def interleave(
    lanes: Sequence[Lane], batches: Sequence[Batch], *, rounds: int, peak: Int8Peak | None
) -> list[float]:
    """Time the lanes in shuffled rounds; return the peak in GMAC/s, once a round."""
    order, peaks = random.Random(0), []
    for _ in range(rounds):
        for lane in order.sample(list(lanes), len(lanes)):
            lane.burst(batches)
        if peak is not None:
            peaks.append(peak.gmacs())
    return peaks


def summary(lanes: Sequence[Lane], clock: str) -> dict[str, Any]:
    """Return the fastest reader, and how much slower `auto` is, paired by round."""
    auto = next(lane for lane in lanes if lane.peer.name.startswith(AUTO))
    others = [lane for lane in lanes if not lane.peer.name.startswith("finedge")]
    fastest = min(others, key=lambda lane: statistics.median(lane.medians(clock)))
    pairs = zip(auto.medians(clock), fastest.medians(clock), strict=True)
    ratios = sorted(own / other for own, other in pairs)
    ratio = statistics.median(ratios)
    return {
        "fastest": fastest.peer.name,
        "auto": auto.peer.name,
        "auto_over_fastest": round(ratio, 4),
        "range": [round(ratios[0], 4), round(ratios[-1], 4)],
        "within_5_percent": ratio <= TARGET,
    }


def rows(
    lanes: Sequence[Lane], bundle: Bundle, batches: Sequence[Batch], *, peak_gmacs: float | None
) -> list[dict[str, Any]]:
    """Return a row for each reader; the distances are from the bundle's FP32 file."""
    macs = macs_by_variant(bundle)
    float_lane = next(lane for lane in lanes if lane.peer.name == "finedge onnxruntime fp32")
    expected = [float_lane.peer.answer(batch) for batch in batches]
    return [row(lane, batches, expected, macs=macs, peak_gmacs=peak_gmacs) for lane in lanes]


def row(
    lane: Lane,
    batches: Sequence[Batch],
    expected: Sequence[np.ndarray],
    *,
    macs: dict[str, int],
    peak_gmacs: float | None,
) -> dict[str, Any]:
    """Return the row of one reader."""
    peer = lane.peer
    off = max(
        float(np.abs(peer.answer(b) - e).max()) for b, e in zip(batches, expected, strict=True)
    )
    cpu_ms = statistics.median(lane.medians("cpu"))
    gmacs = macs[peer.variant] / cpu_ms / 1e6 if peer.variant in macs else None
    share = None
    if gmacs is not None and peak_gmacs is not None and peer.variant == "int8":
        share = round(gmacs / peak_gmacs, 4)
    return {
        "name": peer.name,
        "variant": peer.variant,
        "versions": dict(peer.versions),
        "queries": sum(map(len, lane.wall_ms)),
        "cpu_ms": round(cpu_ms, 4),
        "wall_ms": round(statistics.median(lane.medians("wall")), 4),
        "wall_ms_fastest_burst": round(min(lane.medians("wall")), 4),
        "max_abs_from_fp32": round(off, 5),
        "gmacs_per_cpu_second": gmacs and round(gmacs, 2),
        "share_of_int8_peak": share,
    }


def macs_by_variant(bundle: Bundle) -> dict[str, int]:
    """Return the multiply-accumulates of a frame by variant, as `finedge export` counted them."""
    cost = bundle.provenance.get("export", {}).get("attention_cost", {})
    counts: dict[str, int] = cost.get("macs", {})
    return counts


if __name__ == "__main__":
    tyro.cli(main)
