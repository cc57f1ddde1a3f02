"""CPU milliseconds an image of what `--quick` does: maps of frozen blocks, and a step on them.

    python benchmarks/quick_cost.py benchmarks/results/quick/cost.jsonl

EfficientNet-Lite0 at 160 px, batches of 32, one thread, random pixels. PyTorch and ONNX Runtime
take turns; a row has the medians of the CPU times.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch

from benchmarks.demo_steps import append_row
from finedge.train.models import build_model
from finedge.train.quick.map_engine import _engine, _Maps

SIZE, BATCH, ROUNDS = 160, 32, 5


def cpu_ms(call: Callable[[], object]) -> float:
    """Return the CPU milliseconds an image of one call."""
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start) / BATCH


def medians(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median of each call; they take turns after one call each to warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS + 1):
        for name, call in calls.items():
            spent = cpu_ms(call)
            if turn:
                times[name].append(spent)
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def main() -> None:
    """Measure, and append one row for each number of frozen stages."""
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    model = build_model("plain", num_classes=12, backbone="efficientnet_lite0", weights="imagenet")
    backbone = model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    for stages in (2, 3, 4, 5):
        last = backbone.stages[stages - 1] if stages < 5 else backbone.chain[-1]
        part = _Maps(backbone.eval(), [last])
        with torch.no_grad():
            engine, maps = _engine(part, images[:2]), part(images)[0]
            row = medians({"maps_torch": lambda: part(images), "maps_ort": lambda: engine(images)})
        if stages < 5:
            backbone.train().requires_grad_(True)
            row |= medians(
                {"step_after": lambda: backbone.run(maps, after=last)[0].mean().backward()}
            )
        append_row(out, {"frozen_until": last, "cpu_ms_an_image": row, "versions": versions})
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
