"""The golden frame: a synthetic picture and the outputs of every file of the bundle for it.

It is replayed on each new device.

golden.npz holds
    frame               uint8 [480, 640, 3], drawn by this module, never a user's photo
    input               uint8 [crop, crop, 3], the frame preprocessed
    tap/NAME            float32 [<= 4096], evenly spaced elements of a tap of the float model
    FILE/OUTPUT         float32 [1, classes], e.g. model.fp32.onnx/logits
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import GOLDEN, Bundle
from finedge.errors import BundleError, DataError

TAP_SAMPLE = 4096  # elements
MAX_ARRAYS = 10_000
MAX_SIDE = 2048  # pixels of the frame; it is drawn with 640 x 480


def synthetic_frame() -> NDArray[np.uint8]:
    """Draw the golden frame.

    Its smooth colour, hard edges and fine texture reveal a wrong resize, crop or colour order.

    Integer arithmetic only: every machine draws the same bytes.
    """
    return _drawn_frame().copy()


@cache
def _drawn_frame() -> NDArray[np.uint8]:
    y, x = np.mgrid[0:480, 0:640]
    frame = np.stack([x * 255 // 639, y * 255 // 479, (x + y) * 255 // 1118], axis=-1)
    frame[120:360, 160:480] = 255 - frame[120:360, 160:480]
    frame[(x // 16 + y // 16) % 7 == 0] = (230, 40, 20)
    frame[(x - 320) ** 2 + (y - 240) ** 2 < 90**2] = (20, 90, 220)
    texture = (x * 73 + y * 151 + x * y * 7) % 41
    textured: NDArray[np.uint8] = np.clip(frame + texture[..., None] - 20, 0, 255).astype(np.uint8)
    return textured


def orientations(frame: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return the eight rotations and reflections of a frame by right angles, itself first."""
    return [np.ascontiguousarray(np.rot90(f, k)) for f in (frame, frame[:, ::-1]) for k in range(4)]


def tap_sample(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return at most 4096 evenly spaced elements of a feature map (any shape), as float32."""
    flat = np.asarray(values, np.float32).ravel()
    chosen: NDArray[np.float32] = flat[
        np.linspace(0, flat.size - 1, min(TAP_SAMPLE, flat.size)).round().astype(int)
    ]
    return chosen


def pack(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return the bytes of golden.npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def read_golden(bundle: Bundle) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a bundle's golden.npz.

    The header of each array is checked against the bundle before its bytes are read.

    Raises:
        BundleError: the archive is damaged, or an array has a wrong dtype or shape.
    """
    path = bundle.file(GOLDEN)
    try:
        return _arrays(path, bundle)
    except DataError:
        raise
    except Exception as error:  # errors of zipfile, zlib and numpy share no base class
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _arrays(path: Path, bundle: Bundle) -> dict[str, NDArray[np.generic]]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_ARRAYS:
            raise _damaged(path, f"{len(members)} arrays")
        return Golden(
            {m.filename.removesuffix(".npy"): _array(archive, m, bundle) for m in members}
        )


class Golden(dict[str, NDArray[np.generic]]):
    """The arrays by name; a missing one raises `BundleError`."""

    def __missing__(self, name: str) -> NDArray[np.generic]:
        """Raise `BundleError`."""
        raise _damaged(GOLDEN, f"it lacks '{name}'")


def _array(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    bundle: Bundle,
) -> NDArray[np.generic]:
    name = member.filename.removesuffix(".npy")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, _, dtype = header[version](file)  # type: ignore[no-untyped-call]
    form = _form_of(name, bundle)
    if dtype != form.dtype or not form.fits(shape):
        what = f"'{name}' is {dtype} {list(shape)}"
        raise _damaged(str(archive.filename), what, expected=str(form))
    with archive.open(member) as file:
        array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)  # type: ignore[no-untyped-call]
    return array


@dataclass(frozen=True)
class ArrayForm:
    """The expected form of an array: dtype and shape; with `up_to`, the largest shape."""

    dtype: type[np.generic]
    shape: tuple[int, ...]
    up_to: bool = False

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Tell whether an array of this shape has the form."""
        if self.up_to and len(shape) == len(self.shape):
            return all(0 < n <= limit for n, limit in zip(shape, self.shape, strict=True))
        return shape == self.shape

    def __str__(self) -> str:
        return f"{self.dtype.__name__} {'at most ' if self.up_to else ''}{list(self.shape)}"


def _form_of(name: str, bundle: Bundle) -> ArrayForm:
    spec = bundle.spec
    if name == "frame":
        return ArrayForm(np.uint8, (MAX_SIDE, MAX_SIDE, 3), up_to=True)
    if name == "input":
        return ArrayForm(np.uint8, (spec.input.height, spec.input.width, 3))
    if name.startswith("tap/"):
        return ArrayForm(np.float32, (TAP_SAMPLE,), up_to=True)
    return ArrayForm(np.float32, (1, len(spec.labels)))


def _damaged(
    path: Path | str,
    what: str,
    *,
    expected: str = "the golden frame and its answers",
) -> BundleError:
    return BundleError(f"{path} is damaged: {what}", expected=expected, fix="export again")
