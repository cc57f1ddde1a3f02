"""Time training steps of every family: train_steps.py BACKBONE SIDE --lock FILE [--half].

One JSON object a line. Several of these run side by side, because cuDNN plans for seconds at every
new size of an image, on one core. Whoever takes a time has the lock alone; whoever plans shares it.
`--half` compares a float16 forward pass of each family with float32 afterwards.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.device import clocks, device  # noqa: E402
from benchmarks.gpu.results import Row  # noqa: E402
from finedge.train.models import FineGrained, build_model, names  # noqa: E402

WARM, STEPS, CLASSES = 3, 12, 100
BATCH, HALF_BATCH = 64, 8


@dataclass(frozen=True)
class Training:
    """What is timed; options of a model are its defaults."""

    model: str
    backbone: str
    side: int
    batch: int = BATCH

    def images(self, batch: int) -> torch.Tensor:
        """Return random images [batch, 3, side, side], channels last."""
        images = torch.randn(batch, 3, self.side, self.side, device=device())
        return images.to(memory_format=torch.channels_last)

    def build(self) -> FineGrained:
        """Return the model with the weights of a fixed seed, channels last."""
        torch.manual_seed(0)
        model = build_model(self.model, num_classes=CLASSES, backbone=self.backbone)
        return model.to(device(), memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbone")
    parser.add_argument("side", type=int)
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--batch", type=int, default=BATCH)
    arguments = parser.parse_args()
    sizes = (arguments.backbone, arguments.side, arguments.batch)
    with arguments.lock.open("w") as lock:
        for name in names():
            print(json.dumps(_tried(Training(name, *sizes), lock, half=False)), flush=True)
        for name in names() if arguments.half else ():
            print(json.dumps(_tried(Training(name, *sizes), lock, half=True)), flush=True)


def _tried(training: Training, lock: Any, *, half: bool) -> Row:
    """Return the row of one family; what fails leaves its reason, and costs no other family."""
    row = {**vars(training), "what": "half" if half else "steps"}
    try:
        return {**row, **(halved(training, lock) if half else steps(training, lock))}
    except Exception as error:
        return {**row, "reason": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def steps(training: Training, lock: Any) -> Row:
    """Take `STEPS` steps of SGD under bfloat16 autocast, with the GPU to itself."""
    with locked(lock, fcntl.LOCK_SH):
        start = time.perf_counter()
        model, images = training.build(), training.images(training.batch)
        targets = torch.randint(CLASSES, (training.batch,), device=device())
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)
        model.train()

        def step() -> torch.Tensor:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device().type, dtype=torch.bfloat16):
                loss = model.loss(model(images), targets, label_smoothing=0.1)
            loss.backward()
            optimizer.step()
            return loss.detach()

        for _ in range(WARM):
            loss = step().item()
        planned = time.perf_counter() - start
    with locked(lock, fcntl.LOCK_EX):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        step().item()
        start = time.perf_counter()
        for _ in range(STEPS):
            last = step()
        loss = last.item()  # waits for the GPU
        seconds = time.perf_counter() - start
        now = clocks()
    return {
        "images_per_s": round(STEPS * training.batch / seconds, 1),
        "planned_s": round(planned, 2),
        "memory_gib": round(_memory() / 2**30, 2),
        "loss": round(loss, 4),
        "clocks": now,
    }


@torch.inference_mode()
def halved(training: Training, lock: Any) -> Row:
    """Return how far a float16 copy is from float32, as a share of the largest answer."""
    with locked(lock, fcntl.LOCK_SH):
        model, images = training.build().eval(), training.images(HALF_BATCH)
        exact = {name: answer.float() for name, answer in model(images).items()}
        half = {name: answer.float() for name, answer in model.half()(images.half()).items()}
    shares = [
        ((half[name] - one).abs().max() / one.abs().max()).item() for name, one in exact.items()
    ]
    finite = all(bool(answer.isfinite().all()) for answer in half.values())
    return {"half_error": round(max(shares), 6), "half_finite": finite}


@contextmanager
def locked(file: Any, mode: int) -> Iterator[None]:
    """Hold the lock shared or alone; the end of the process frees it."""
    fcntl.flock(file, mode)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _memory() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


if __name__ == "__main__":
    main()
