"""Whether two computations agree: for `finedge verify`, an engine's first frame, an export.

A stage is `{"name", "max_abs", "limit", "pass"}`. One that could not be checked has `"pass": null`
and the reason under `skipped`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.runtime.backend import Session
from finedge.runtime.ort.backend import REDUCED_RANGE

Stage = dict[str, Any]

# Relative to max(1, max |value|). Float: only the order of sums may differ.
FLOAT_LIMIT = 1e-4
# Where a model rounds more than that in PyTorch itself, this many times its own error is allowed,
# but never half of its largest score. Two computations of equal worth differ by up to twice the
# error of either, and the worst of few scores varies by chance.
OWN_ERRORS, MOST = 8.0, 0.5
# A feature map has thousands of values and its worst one counts: 1.3e-4 was seen on a MobileNetV2
# after three epochs. A wrong layer is off by its own size.
TAP_LIMIT = 1e-3
# Not measured yet: float16 keeps 11 bits.
FP16_LIMIT = 2e-2
# Other CPUs and runtime versions round differently at each Q/DQ pair. Measured on
# EfficientNet-Lite0, fused against unfused arithmetic of the same file: 0.024 on the golden frame,
# at most 0.035 on 48 photographs; against float32 itself 0.14.
INT8_LIMIT = 0.1
# Weights cut to 7 bits at load are another model: 0.17 on the golden frame, at most 0.26 on 61
# photographs.
SEVEN_BIT_LIMIT = 0.5
LIMITS = {"fp32": FLOAT_LIMIT, "fp16": FP16_LIMIT, "int8": INT8_LIMIT}


def compared(
    name: str,
    found: NDArray[np.generic],
    expected: NDArray[np.generic] | None,
    *,
    limit: float,
    own: float = 0.0,
) -> Stage:
    """Compare two arrays; `limit` is relative to max(1, max |expected|), NaN and other shapes fail.

    `own` is the absolute error of the expected array itself, 8 times of which is allowed too.
    """
    if expected is None:
        return skipped(name, f"golden.npz or the reference has no {name}")
    if found.shape != expected.shape:
        note = f"shape {list(found.shape)}, expected {list(expected.shape)}"
        return {"name": name, "max_abs": None, "limit": limit, "pass": False, "note": note}
    a, b = found.astype(np.float64), expected.astype(np.float64)
    scale = max(1.0, float(np.abs(b).max()))
    worst, allowed = float(np.abs(a - b).max()), allowance(scale, own, tolerance=limit)
    stage: Stage = {"name": name, "max_abs": worst, "limit": allowed, "pass": worst <= allowed}
    return stage if np.isfinite(worst) else {**stage, "max_abs": None, "note": "not finite"}


def allowance(scale: float, own_error: float, *, tolerance: float) -> float:
    """Return by how much scores up to `scale` may differ: a share, or a multiple of their error."""
    return max(tolerance * scale, min(OWN_ERRORS * own_error, MOST * scale))


def golden_stages(
    session: Session,
    bundle: Bundle,
    *,
    golden: Mapping[str, NDArray[np.generic]],
    variant: str,
) -> Iterator[Stage]:
    """Compare outputs on the golden frame with what the file answered when it was made.

    For an engine that is the file it was built from.
    """
    info = session.info
    outputs = session(golden["input"][None].astype(np.uint8, copy=False))
    cut = info.precision == REDUCED_RANGE
    limit, how = (SEVEN_BIT_LIMIT, " (7-bit weights)") if cut else (LIMITS[variant], "")
    file = info.source or info.file
    parity = bundle.export.parities.get(file)
    own = parity.own_error if parity and file == FLOAT_FILE else 0.0
    for name in (o.name for o in bundle.spec.outputs):
        yield compared(
            f"logits {info.file}/{name}{how}",
            outputs[name],
            golden.get(f"{file}/{name}"),
            limit=limit,
            own=own,
        )


def skipped(name: str, why: str) -> Stage:
    """Return a stage that was not checked."""
    return {"name": name, "max_abs": None, "limit": None, "pass": None, "skipped": why}
