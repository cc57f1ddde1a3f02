"""CPU milliseconds an image of what `--quick` does: maps of frozen blocks, and a step on them.

    python -m benchmarks.quick_cost benchmarks/results/quick/cost.jsonl

EfficientNet-Lite0 at 160 px, batches of 32, one thread, random pixels. PyTorch and ONNX Runtime
take turns; a row has the medians of the CPU times.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from benchmarks.demo_steps import append_row
from finedge.train.backbones import Backbone
from finedge.train.models import build_model
from finedge.train.quick.cached_backbone import last_frozen
from finedge.train.quick.map_engine import BlockMaps, onnx_runtime_maps

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


@torch.no_grad()
def map_costs(backbone: Backbone, block: str, images: Tensor) -> dict[str, float]:
    """Return the costs of the maps of `block` in PyTorch and in ONNX Runtime."""
    part = BlockMaps(backbone.eval(), [block])
    engine = onnx_runtime_maps(part, images[:2])
    return medians({"maps_torch": lambda: part(images), "maps_ort": lambda: engine(images)})


def step_cost(backbone: Backbone, block: str, images: Tensor) -> dict[str, float]:
    """Return the cost of forward and backward of the blocks after `block`."""
    with torch.no_grad():
        maps = backbone.eval().run(images, until=block)[0]
    backbone.train().requires_grad_(True)
    step = partial(backbone.run, maps, after=block)
    return medians({"step_after": lambda: torch.autograd.backward(step()[0].mean())})


def main() -> None:
    """Measure, and append one row for each number of frozen stages; 0 is the whole backbone."""
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    model = build_model("plain", num_classes=12, backbone="efficientnet_lite0", weights="imagenet")
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    backbone = model.backbone
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    for stages in (2, 3, 4, 0):
        last = last_frozen(backbone, stages=stages)
        row = map_costs(backbone, last, images)
        if stages:
            row |= step_cost(backbone, last, images)
        append_row(out, {"frozen_until": last, "cpu_ms_an_image": row, "versions": versions})
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
