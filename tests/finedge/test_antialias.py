"""The resize `cv2-antialias`: its arithmetic, its geometry, what it removes, and its buffers."""

from __future__ import annotations

import hashlib
import tracemalloc

import cv2
import numpy as np
import pytest

from finedge.antialias import antialias, centred
from finedge.errors import UsageError
from finedge.preprocess import crop_axes, preprocess, preprocess_batch
from finedge.spec import Preprocess

HOW = Preprocess(256, 224, "cv2-antialias")
SIZES = [(240, 320), (480, 640), (720, 1280), (1080, 1920), (640, 481), (50, 333), (3, 900), (1, 1)]
# sha256 of the crops of noise. OpenCV 4.5.5 to 5.0 gave this, on x86-64 and on aarch64.
DIGEST = "f76660e759b6ed48cce6b1cf3b3d3e27800c9fa9dde619977cd89bb3c6fad1c1"


def noise(height: int, width: int) -> np.ndarray:
    bits = np.random.RandomState(height * 10007 + width)  # its numbers are fixed for ever
    return bits.randint(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_pixels_never_change() -> None:
    digest = hashlib.sha256()
    for size in SIZES:
        digest.update(preprocess(noise(*size), HOW).tobytes())
        digest.update(preprocess(noise(*size), Preprocess(200, 160, HOW.method, "squash")))
    assert digest.hexdigest() == DIGEST


@pytest.mark.parametrize("halvings", [(1, 1), (2, 2), (0, 1), (2, 1)])
def test_halving_is_the_rounded_mean(halvings: tuple[int, int]) -> None:
    frame = noise(96, 96)
    axes = [centred(96, 96 >> n, length=96) for n in halvings]
    assert tuple(axis.halvings for axis in axes) == halvings
    expected = frame.astype(int)
    for step in range(max(halvings)):
        down, across = (1 + (step < n) for n in halvings)
        blocks = expected.reshape(expected.shape[0] // down, down, -1, across, 3)
        expected = (blocks.sum(axis=(1, 3)) + down * across // 2) // (down * across)
    assert np.array_equal(antialias(frame, (axes[0], axes[1])), expected)


@pytest.mark.parametrize("pixels", [240, 269, 300, 333, 400, 447])
def test_the_filter_has_the_weights_of_the_docstring(pixels: int) -> None:
    frame, axis = noise(pixels, pixels), centred(pixels, 224, length=pixels)
    weight = axis.blur
    assert weight == 0 if pixels < 250 else 0 < weight <= 64
    padded = np.pad(frame.astype(int), ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = weight * (padded[:-2] + padded[2:]) + (256 - 2 * weight) * padded[1:-1]
    sums = weight * (rows[:, :-2] + rows[:, 2:]) + (256 - 2 * weight) * rows[:, 1:-1]
    blurred = ((sums + (1 << 15)) >> 16).astype(np.uint8)
    expected = cv2.resize(blurred, (224, 224), interpolation=cv2.INTER_LINEAR_EXACT)
    assert np.array_equal(antialias(frame, (axis, axis)), expected)


@pytest.mark.parametrize("rule", ["short-side", "squash"])
@pytest.mark.parametrize("size", SIZES)
def test_the_crop_is_the_middle_of_the_frame(size: tuple[int, int], rule: str) -> None:
    how = Preprocess(256, 224, HOW.method, rule)
    if rule == "squash":
        lengths = [side * 224 / 256 for side in size]
    else:
        lengths = [min(size) * 224 / 256] * 2
    for side, length, axis in zip(size, lengths, crop_axes(*size, how), strict=True):
        part = axis.stop - axis.start
        assert 0 <= axis.start < axis.stop <= side
        assert abs(part - length) <= max(part / axis.pixels, part / 224) / 2 + 0.5
        assert abs((axis.start + axis.stop) / 2 - side / 2) <= 0.5
        assert axis.pixels < 224 or axis.pixels <= 2 * 224


@pytest.mark.parametrize("scale", [1.6, 1.9, 2.8125, 4.2])
def test_gratings_that_the_crop_cannot_show_almost_disappear(scale: float) -> None:
    side, how = 4 * round(224 * scale / 4), Preprocess(224, 224, HOW.method)
    ratio = []
    for cycles in (0.75, 1.0):  # per pixel of the crop; 0.5 is its limit
        wave = np.sin(2 * np.pi * cycles / scale * np.arange(side) + 0.3)
        frame = np.repeat(np.rint(127.5 + 100 * np.tile(wave, (side, 1)))[..., None], 3, axis=2)
        crops = [preprocess(frame.astype(np.uint8), how)]
        crops.append(preprocess(frame.astype(np.uint8), Preprocess(224, 224, "cv2-linear")))
        ratio.append([crop.astype(float).var() / frame.var() for crop in crops])
    energy, energy_of_linear = np.mean(ratio, axis=0)
    assert energy < 0.15
    assert energy < energy_of_linear / 3


def test_a_crop_is_written_into_the_row_of_a_batch() -> None:
    frame, batch = noise(480, 640), np.empty((2, 224, 224, 3), np.uint8)
    for method in ("cv2-antialias", "pillow-bicubic", "cv2-area"):
        how = Preprocess(256, 224, method)
        result = preprocess(frame, how, out=batch[1])
        assert np.shares_memory(result, batch)
        assert np.array_equal(batch[1], preprocess(frame, how))


@pytest.mark.parametrize("out", [np.empty((224, 224, 3)), np.empty((3, 224, 224), np.uint8)])
def test_a_buffer_of_another_kind_is_refused(out: np.ndarray) -> None:
    with pytest.raises(UsageError, match="out is"):
        preprocess(noise(240, 320), HOW, out=out)


def test_a_batch_is_the_only_copy_that_is_kept() -> None:
    frames = [noise(720, 1280)] * 8
    preprocess_batch(frames, HOW, count=8)
    tracemalloc.start()
    batch = preprocess_batch(frames, HOW, count=8)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    halved = 315 * 315 * 3  # once as it is, once filtered
    assert kept < batch.nbytes + 50_000
    assert peak < batch.nbytes + 2.2 * halved, "no copy of a frame or of its crop"
