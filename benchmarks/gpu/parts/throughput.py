"""Training steps of every family on random images, and a float16 forward pass against float32."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.gpu.device import NO_GPU, clocks
from benchmarks.gpu.part import Request, Row, Skip
from finedge.train.models import FineGrained, build_model, names

WARM, STEPS, BATCH, CLASSES = 5, 20, 64, 100
SIDES = (224, 448)
BACKBONES = ("efficientnet_lite0", "resnet50")


@dataclass(frozen=True)
class Training:
    """What is timed; options of a model are its defaults."""

    model: str
    backbone: str
    side: int
    batch: int = BATCH


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    for backbone in BACKBONES:
        for side in SIDES:
            for name in names():
                if request.seconds_left < 4:
                    return
                yield tried(Training(name, backbone, side))


def tried(what: Training) -> Row:
    """Time one training; what fails leaves its reason."""
    row: dict[str, Any] = asdict(what)
    try:
        torch.manual_seed(0)
        model = build_model(what.model, num_classes=CLASSES, backbone=what.backbone).to(
            "cuda", memory_format=torch.channels_last
        )  # type: ignore[call-overload]
        row |= {**steps(model, what), "clocks": clocks()}
        return {**row, **halved(model, what)}
    except Exception as error:  # one family must not cost the others
        return {**row, "reason": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    finally:
        torch.cuda.empty_cache()


def steps(model: FineGrained, what: Training) -> Row:
    """Take `STEPS` steps of SGD under bfloat16 autocast."""
    images = torch.randn(what.batch, 3, what.side, what.side, device="cuda").to(
        memory_format=torch.channels_last
    )
    targets = torch.randint(CLASSES, (what.batch,), device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)
    model.train()

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model.loss(model(images), targets, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss.detach()

    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    step().item()
    first = time.perf_counter() - start
    for _ in range(WARM):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        loss = step()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated() / 2**30
    rate = round(STEPS * what.batch / seconds, 1)
    return {
        "images_per_s": rate,
        "first_step_s": round(first, 2),
        "memory_gib": round(memory, 2),
        "loss": round(loss.item(), 4),
    }


@torch.inference_mode()
def halved(model: FineGrained, what: Training) -> Row:
    """Return how far a float16 copy is from float32, as a share of the largest answer."""
    model.eval()
    images = torch.randn(8, 3, what.side, what.side, device="cuda").to(
        memory_format=torch.channels_last
    )
    exact = {name: answer.clone() for name, answer in model(images).items()}
    half = {name: answer.float() for name, answer in model.half()(images.half()).items()}
    shares = {
        name: ((half[name] - one.float()).abs().max() / one.abs().max()).item()
        for name, one in exact.items()
    }
    return {
        "half_error": round(max(shares.values()), 6),
        "half_finite": all(bool(h.isfinite().all()) for h in half.values()),
    }
