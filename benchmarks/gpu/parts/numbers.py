"""The attention kernel against float64: hundreds of drawn shapes, formats, splits and scales.

A case passes where every element was written, the error is at most `LIMIT` of the largest value,
three runs agree to the bit, and nothing was written outside. float16 rounds weights and answer by
2^-11 each, so that about 1e-3 is what its format allows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks.gpu.case import Case
from benchmarks.gpu.device import NO_GPU, device, open_driver
from benchmarks.gpu.part import Request, Row, Skip
from benchmarks.gpu.problems import Attention
from benchmarks.gpu.shapes import GRIDS, HEADS
from finedge.runtime.cuda.libcuda import LIBRARY
from finedge.runtime.trt.plugin.driver import Driver
from finedge.runtime.trt.plugin.launch import FORMATS, HALF, INT8, is_readable

LIMIT = 1.5e-3
DRAWN = 420
EVERY = 60  # cases between rows that say how far the part is
MOST = 12_000_000  # elements of the score matrix: what the reference computes in float64
# (least and most channels, shared), one row a kernel
FAMILIES = (
    (1, 64, False),
    (65, 128, False),
    (129, 256, False),
    (257, 512, False),
    (257, 512, True),
    (513, 1024, True),
)


def rows(request: Request) -> Iterator[Row]:
    if not torch.cuda.is_available() and request.library == LIBRARY:
        raise Skip(NO_GPU)
    driver = open_driver(request.library)
    cases = (
        [replace(c, batch=min(c.batch, 2)) for c in SMALL]
        if request.small
        else [*FIXED, *drawn(DRAWN)]
    )
    worst: dict[str, list[float]] = {}
    failures = 0
    for number, case in enumerate(cases):
        row = tried(case, driver)
        failures += not row["pass"]
        worst.setdefault(case.kernel, []).append(row["error"])
        if not row["pass"] or request.small:
            yield row
        if number % EVERY == EVERY - 1:
            yield {"what": "so far", "done": number + 1, "failures": failures}
        if "reason" in row or request.seconds_left < 2:
            break
    for kernel, errors in sorted(worst.items()):
        yield {"what": "kernel", "kernel": kernel, "cases": len(errors), "max_error": max(errors)}
    done = sum(map(len, worst.values()))
    yield {"what": "total", "cases": done, "of": len(cases), "failures": failures, "limit": LIMIT}


def tried(case: Case, driver: Driver) -> dict[str, Any]:
    """Check a case; an error of CUDA is a failure with its reason, and the context is lost."""
    try:
        return checked(Attention(case, driver, device=device()))
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        row = {"what": "case", **asdict(case), "kernel": case.kernel, "reason": reason}
        return {**row, "error": float("inf"), "pass": False}


def checked(attention: Attention) -> dict[str, Any]:
    """Run a case three times and compare it with float64."""
    first = attention.answer()
    same = all(
        torch.equal(attention.answer().view(torch.int16), first.view(torch.int16)) for _ in range(2)
    )
    largest = attention.v.exact().abs().max().item()
    error = (first.double() - attention.exact()).abs().max().item() / largest
    finite, guarded = bool(torch.isfinite(first).all()), attention.guarded()
    return {
        "what": "case",
        **asdict(attention.case),
        "kernel": attention.case.kernel,
        "splits": attention.splits,
        "error": error if finite else float("inf"),
        "same": same,
        "guarded": guarded,
        "pass": finite and same and guarded and error <= LIMIT,
    }


def drawn(count: int) -> Iterator[Case]:
    """Draw cases by a fixed seed: all kernels in turn, formats that the kernel says it reads."""
    random_ = random.Random(0)
    for number in range(count):
        yield _one(random_, number)


def _one(random_: random.Random, number: int) -> Case:
    least, most, shared = FAMILIES[number % len(FAMILIES)]
    d = random_.choice(
        (random_.randint(least, most), most, random_.randint(least // 8 + 1, most // 8) * 8)
    )
    dv = d if shared else random_.choice((d, random_.randint(1, most)))
    queries = random_.choice((1, 15, 16, 17, 49, 196, random_.randint(1, 400)))
    keys = random_.choice((1, 31, 32, 33, 49, 196, 784, 3136, random_.randint(1, 3136)))
    batch = min(random_.choice((1, 2, 3, 8, 33)), max(1, MOST // (queries * keys)))
    splits = random_.choice((0, 0, 1, 2, 3, 7, 32))
    q, k, v, y = (
        _format(random_, c, n) for c, n in ((d, queries), (d, keys), (dv, keys), (dv, queries))
    )
    while y[1] == INT8:
        y = _format(random_, dv, queries)
    v = k if shared else v
    gain = random_.choice((1e-4, 1.0, 1.0, 1.0, 8.0, 300.0))
    value_gain = (
        random_.choice((1e-3, 1.0, 1.0, 30.0))
        if v[1] == HALF and not (shared and gain > 8)
        else 1.0
    )
    forms, kinds = (q[0], k[0], v[0]), (q[1], k[1], v[1])
    return Case(
        queries, keys, d, dv, batch, shared, splits, forms, kinds, y[0], gain, value_gain, number
    )


def _format(random_: random.Random, channels: int, positions: int) -> tuple[str, int]:
    readable = [
        f for f in FORMATS if is_readable(f[0], kind=f[1], channels=channels, positions=positions)
    ]
    return random_.choice(readable)


# The shapes of CNL at 224 and 448 pixels, and extremes.
SHAPES = tuple(
    Case(queries, keys, d, d, batch, shared)
    for queries, keys in GRIDS.values()
    for d, shared in HEADS
    for batch in (1, 8)
)
FIXED = (
    *SHAPES,
    Case(16, 32, 64, 64, gain=1e4),
    Case(196, 3136, 512, 512, batch=2, shared=True, gain=300.0),
    Case(1, 1, 8, 8),
    Case(1, 1, 1, 1),
    Case(33, 65, 64, 64, forms=("LINEAR", "LINEAR", "LINEAR"), form_out="LINEAR"),
    Case(33, 65, 64, 64, forms=("HWC8", "CHW32", "CHW32"), kinds=(HALF, INT8, INT8)),
)
SMALL = (
    Case(9, 36, 64, 64),
    Case(21, 72, 61, 61, batch=2, splits=3),
    Case(4, 25, 264, 264, shared=True),
    Case(9, 36, 64, 64, forms=("LINEAR", "LINEAR", "LINEAR"), form_out="LINEAR"),
)
