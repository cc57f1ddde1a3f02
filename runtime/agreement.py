"""Whether two computations agree: for `finedge verify`, an engine's first frame and an export.

A stage is `{"name", "max_abs", "limit", "pass"}`. A stage that could not be checked has
`"pass": null`, and the reason under `skipped`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.runtime.backend import REDUCED_RANGE, Session

Stage = dict[str, Any]

# Limits are relative to max(1, max |expected|). Float: only the order of sums may differ.
FLOAT_LIMIT = 1e-4
# Some models round more than that in PyTorch itself. They are allowed 8 times their own error, but
# never half of their largest score. Two equally exact computations differ by up to twice the error
# of either, and the worst of few scores varies by chance.
OWN_ERRORS, MAX_ALLOWANCE = 8.0, 0.5
# A feature map has thousands of values and its worst one counts: 1.3e-4 was seen on a MobileNetV2
# after three epochs. A wrong layer is off by its own size.
TAP_LIMIT = 1e-3
# Not measured yet: float16 keeps 11 bits.
FP16_LIMIT = 2e-2
# Other CPUs and runtime versions round differently at each Q/DQ pair. Measured on
# EfficientNet-Lite0, fused against unfused arithmetic of the same file: 0.024 on the golden frame,
# at most 0.035 on 48 photographs; against float32 itself 0.14.
INT8_LIMIT = 0.1
# Weights that are cut to 7 bits at load make another model: 0.17 on the golden frame, at most 0.26
# on 61 photographs.
REDUCED_RANGE_LIMIT = 0.5
LIMITS = {"fp32": FLOAT_LIMIT, "fp16": FP16_LIMIT, "int8": INT8_LIMIT}


def compared(
    name: str,
    values: NDArray[np.generic],
    expected: NDArray[np.generic] | None,
    *,
    limit: float,
    own: float = 0.0,
) -> Stage:
    """Compare two arrays. NaN, infinity and another shape fail.

    `limit` is relative to max(1, max |expected|). `own` is the absolute error of the expected
    array itself; 8 times that is allowed too.
    """
    if expected is None:
        return skipped(name, f"golden.npz or the reference has no {name}")
    if values.shape != expected.shape:
        note = f"shape {list(values.shape)}, expected {list(expected.shape)}"
        return {"name": name, "max_abs": None, "limit": limit, "pass": False, "note": note}
    a, b = values.astype(np.float64), expected.astype(np.float64)
    scale = max(1.0, float(np.abs(b).max()))
    worst, allowed = float(np.abs(a - b).max()), allowance(scale, own, tolerance=limit)
    stage: Stage = {"name": name, "max_abs": worst, "limit": allowed, "pass": worst <= allowed}
    return stage if np.isfinite(worst) else {**stage, "max_abs": None, "note": "not finite"}


def allowance(scale: float, own_error: float, *, tolerance: float) -> float:
    """Return by how much scores up to `scale` may differ.

    It is the larger of a fraction (`tolerance`) of the scale and a multiple of their own error.
    """
    return max(tolerance * scale, min(OWN_ERRORS * own_error, MAX_ALLOWANCE * scale))


def golden_stages(
    session: Session,
    bundle: Bundle,
    *,
    golden: Mapping[str, NDArray[np.generic]],
    variant: str,
) -> Iterator[Stage]:
    """Compare outputs on the golden frame with the file's own outputs when it was made.

    For an engine, the file is the one it was built from.
    """
    info = session.info
    outputs = session(golden["input"][None].astype(np.uint8, copy=False))
    limit, note = LIMITS[variant], ""
    if info.precision == REDUCED_RANGE:
        limit, note = REDUCED_RANGE_LIMIT, " (scaled for 16-bit sums)"
    file = info.source or info.file
    parity = bundle.export.parities.get(file)
    own = parity.own_error if parity and file == FLOAT_FILE else 0.0
    for name in (o.name for o in bundle.spec.outputs):
        yield compared(
            f"logits {info.file}/{name}{note}",
            outputs[name],
            golden.get(f"{file}/{name}"),
            limit=limit,
            own=own,
        )


def skipped(name: str, reason: str) -> Stage:
    """Return a stage that was not checked."""
    return {"name": name, "max_abs": None, "limit": None, "pass": None, "skipped": reason}
