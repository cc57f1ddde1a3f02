"""The matrices against the function of training, on noise (the hardest pixels) and on a photo."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from PIL import Image

from finedge.preprocess import preprocess
from finedge.resample import resampling
from finedge.spec import Method, Preprocess

GREY_LEVELS = 1  # Pillow weighs in 22 bits, OpenCV in 11, both round half up
MEAN = 0.2  # in grey levels; measured 0.0001 (pillow-bicubic) to 0.16 (cv2-antialias)
METHODS = get_args(Method)
SIZES = [
    (480, 640),
    (641, 479),
    (227, 301),
    (99, 131),
    (224, 224),
    (256, 256),
    (360, 181),
    (720, 1280),
    (90, 400),
]


def crop(frame, how):
    """What `export --frame` computes, in numpy."""
    steps = resampling(how, height=frame.shape[0], width=frame.shape[1])
    part = frame[steps.top : steps.bottom, steps.left : steps.right].astype(np.float32)
    for down, across in steps.halvings:
        height, width = part.shape[0] // down, part.shape[1] // across
        part = grey(part.reshape(height, down, width, across, 3).mean(axis=(1, 3)))
    narrow = np.einsum("hwc,xw->hxc", part, steps.columns)
    if steps.rounds_between:
        narrow = grey(narrow)
    return grey(np.einsum("hxc,yh->yxc", narrow, steps.rows))


def grey(values):
    return np.clip(np.floor(values + 0.5), 0, 255)


def depends_on_pillow(method, size):
    """Pillow 13 processes the rows of tall frames first; earlier versions and the graph never do.

    The difference shows where a filter exceeds 0..255.
    """
    return method == "pillow-bicubic" and size[0] > 1.2 * size[1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rule", ["short-side", "squash"])
@pytest.mark.parametrize("method", METHODS)
def test_two_matrix_products_give_the_pixels_of_preprocess(method, rule, size):
    if depends_on_pillow(method, size):
        pytest.skip("Pillow's order of the two passes depends on its version here")
    frame = np.random.default_rng(size).integers(0, 256, (*size, 3), np.uint8)
    how = Preprocess(128, 112, method, rule)
    assert np.abs(crop(frame, how) - preprocess(frame, how)).max() <= GREY_LEVELS


@pytest.mark.parametrize("size", [(512, 929), (401, 600), (300, 400)])
@pytest.mark.parametrize("method", METHODS)
def test_a_photograph_is_cropped_as_in_training(shared_data, method, size):
    frame = np.asarray(
        Image.open(shared_data / "coral" / "parrot.jpg").convert("RGB").resize(size[::-1])
    )
    how = Preprocess(256, 224, method)
    difference = np.abs(crop(frame, how) - preprocess(frame, how))
    assert difference.max() <= GREY_LEVELS
    assert difference.mean() <= MEAN


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_of_a_pixel_sum_to_1_and_reach_only_its_neighbourhood(method):
    steps = resampling(Preprocess(128, 112, method), height=480, width=641)
    assert steps.rows.shape[0] == steps.columns.shape[0] == 112
    for matrix in (steps.rows, steps.columns):
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
        assert (matrix != 0).sum(
            axis=1
        ).max() <= 2 * 2 * 3.75 + 1  # two sides, cubic support 2, scale 480 / 128
