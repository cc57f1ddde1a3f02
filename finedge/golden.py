"""The golden frame: one synthetic picture and what every file of the bundle made of it, replayed on each new device.

golden.npz holds
    frame               uint8 [480, 640, 3], drawn here, never a user's photo
    input               uint8 [crop, crop, 3], the frame preprocessed
    tap/NAME            float32 [<= 4096], evenly spaced elements of a tap of the float model
    FILE/OUTPUT         float32 [1, classes], e.g. model.fp32.onnx/logits
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import GOLDEN, Bundle

TAP_SAMPLE = 4096


def synthetic_frame() -> NDArray[np.uint8]:
    """Draw the frame: smooth colour, hard edges and fine texture, so that a wrong resize, crop or colour order shows.

    Integer arithmetic only: every machine draws the same bytes.
    """
    y, x = np.mgrid[0:480, 0:640]
    frame = np.stack([x * 255 // 639, y * 255 // 479, (x + y) * 255 // 1118], axis=-1)
    frame[120:360, 160:480] = 255 - frame[120:360, 160:480]
    frame[(x // 16 + y // 16) % 7 == 0] = (230, 40, 20)
    frame[(x - 320) ** 2 + (y - 240) ** 2 < 90**2] = (20, 90, 220)
    texture = (x * 73 + y * 151 + x * y * 7) % 41
    textured: NDArray[np.uint8] = np.clip(frame + texture[..., None] - 20, 0, 255).astype(np.uint8)
    return textured


def turned(frame: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return the eight ways in which a frame can be turned by right angles and mirrored, itself first."""
    return [np.ascontiguousarray(np.rot90(f, k)) for f in (frame, frame[:, ::-1]) for k in range(4)]


def tap_sample(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return at most 4096 evenly spaced elements of a feature map (any shape), as float32."""
    flat = np.asarray(values, np.float32).ravel()
    chosen: NDArray[np.float32] = flat[np.linspace(0, flat.size - 1, min(TAP_SAMPLE, flat.size)).round().astype(int)]
    return chosen


def pack(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return the bytes of golden.npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def read_golden(bundle: Bundle) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a bundle's golden.npz."""
    with np.load(bundle.file(GOLDEN), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
