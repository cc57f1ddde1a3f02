"""What a calibration costs, whole and by phase: wall seconds, CPU seconds and peak memory.

    python -m benchmarks.cpu.calibration_cost BUNDLE DATA [--images 256] [--keep COPY]

The bundle is copied first; `finedge calibrate` runs in this process on the copy. The row is added
to benchmarks/results/calibration_cost.jsonl. Peak memory is this process's resident set, looked at
every 20 ms; that of `whole` is the kernel's own peak. Phases that run more than once add up, and
`choose_attention` contains those that it calls. CPU
seconds over the cores are the wall time of an idle machine with as many.
"""

from __future__ import annotations

import functools
import json
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import tyro
from tyro.conf import Positional

from finedge.calib import compose, int8_files
from finedge.calib.held_out import images as held_out
from finedge.cli import main as finedge
from finedge.runtime.machine.cpu import cpu_name, owned_cores
from finedge.runtime.telemetry.environment import commit, load_average, version

RESULTS = Path(__file__).resolve().parents[1] / "results/calibration_cost.jsonl"
LOOK_S = 0.02
# The phases, in the order of a calibration: where its name is looked up, and the name.
PHASES: tuple[tuple[ModuleType, str], ...] = (
    (compose, "draw_samples"),
    (compose, "float_model"),
    (int8_files, "collect_curve"),
    (int8_files, "float_means"),
    (compose, "choose_attention"),
    (int8_files, "quantize_for_tensorrt"),
    (int8_files, "quantize_for_onnxruntime"),
    (int8_files, "correct_biases"),
    (held_out, "variant_scores"),
)


class Phases:
    """Seconds and peak memory by phase."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what runs inside."""
        peak, ended = [resident_mb()], threading.Event()

        def watch() -> None:
            while not ended.wait(LOOK_S):
                peak[0] = max(peak[0], resident_mb())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        start, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
            ended.set()
            watcher.join()
            row = self.rows.setdefault(name, {"wall_s": 0.0, "cpu_s": 0.0, "peak_mb": 0.0})
            row["wall_s"] = round(row["wall_s"] + wall_s, 2)
            row["cpu_s"] = round(row["cpu_s"] + cpu_s, 2)
            row["peak_mb"] = round(max(row["peak_mb"], peak[0]))
            print(name, row, flush=True)

    def wrap(self, module: ModuleType, name: str) -> None:
        """Measure every call of a function of a module."""
        function: Callable[..., Any] = getattr(module, name)

        @functools.wraps(function)
        def measured(*positional: Any, **named: Any) -> Any:
            with self.phase(name):
                return function(*positional, **named)

        setattr(module, name, measured)


def main(
    bundle: Positional[Path],
    data: Positional[Path],
    *,
    images: int = 256,
    keep: Path | None = None,
) -> None:
    """Calibrate a copy of the bundle, and add the row.

    Args:
        bundle: is not changed.
        data: the images.
        images: calibration images.
        keep: where the calibrated copy stays.
    """
    phases = Phases()
    for module, name in PHASES:
        phases.wrap(module, name)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / bundle.name
        shutil.copytree(bundle, copy)
        with phases.phase("whole"):
            code = finedge(["calibrate", str(copy), "--data", str(data), "--images", str(images)])
        if keep is not None:
            shutil.copytree(copy, keep)
        manifest = json.loads((copy / "manifest.json").read_text())
    whole = phases.rows.pop("whole")
    whole["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    spec = manifest["spec"]
    row = {
        "bundle": bundle.name,
        "model": f"{spec['model']} {spec['backbone']} {spec['input']['width']} px",
        "data": data.name,
        "images": images,
        "exit_code": code,
        "whole": whole,
        "phases": phases.rows,
        "cores": owned_cores(),
        "load": load_average(),
        "cpu": cpu_name(),
        "onnxruntime": version("onnxruntime"),
        "commit": commit(),
    }
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


def resident_mb() -> float:
    """Return the resident set of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    tyro.cli(main)
