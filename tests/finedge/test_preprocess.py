from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from PIL import Image

from finedge.errors import UsageError
from finedge.preprocess import PILLOW, preprocess, resized_shape
from finedge.spec import Method, Preprocess

METHODS = get_args(Method)
# Resizing only the crop with its margin rounds other intermediate sums than resizing everything.
GREY_LEVELS = 1


def photo(height, width):
    rng = np.random.default_rng(height * 1000 + width)
    coarse = rng.integers(0, 255, (9, 11, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(smooth.astype(int) + rng.integers(-20, 20, smooth.shape), 0, 255).astype(
        np.uint8
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("height", "width"), [(480, 640), (640, 480), (50, 333), (224, 224), (1, 1)]
)
def test_every_method_gives_the_crop_as_contiguous_rgb(method, height, width):
    result = preprocess(photo(height, width), Preprocess(resize=256, crop=224, method=method))
    assert result.shape == (224, 224, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous


@pytest.mark.parametrize("method", sorted(PILLOW))
@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 481), (100, 120), (227, 227)])
@pytest.mark.parametrize("rule", ["short-side", "squash"])
def test_cropping_first_gives_the_pixels_of_a_whole_image_resize(method, height, width, rule):
    how = Preprocess(resize=128, crop=112, method=method, rule=rule)
    frame = photo(height, width)
    new = resized_shape(height, width, how)
    whole = np.asarray(Image.fromarray(frame).resize(new[::-1], PILLOW[method]))
    top, left = round((new[0] - 112) / 2), round((new[1] - 112) / 2)
    difference = np.abs(
        whole[top : top + 112, left : left + 112].astype(int) - preprocess(frame, how)
    )
    assert difference.max() <= GREY_LEVELS


def test_colour_order_is_kept():
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[..., 0] = 200
    assert preprocess(frame, Preprocess(32, 32))[16, 16].tolist() == [200, 0, 0]


def test_the_shape_follows_torchvision():
    transforms = pytest.importorskip("torchvision.transforms.v2.functional")
    torch = pytest.importorskip("torch")
    for height, width in [(480, 641), (333, 50), (227, 227), (1080, 1920)]:
        expected = transforms.resize(
            torch.zeros(3, height, width, dtype=torch.uint8), [182], antialias=True
        ).shape[1:]
        assert resized_shape(height, width, Preprocess(182, 160)) == tuple(expected)


def test_the_pixels_follow_torchvision():
    """Recipes written for torchvision's antialiased bilinear resize get the same pixels."""
    transforms = pytest.importorskip("torchvision.transforms.v2.functional")
    torch = pytest.importorskip("torch")
    frame = photo(300, 400)
    tensor = transforms.resize(torch.from_numpy(frame).permute(2, 0, 1), [182], antialias=True)
    expected = transforms.center_crop(tensor, [160, 160]).permute(1, 2, 0).numpy()
    assert (
        np.abs(expected.astype(int) - preprocess(frame, Preprocess(182, 160))).max() <= GREY_LEVELS
    )


@pytest.mark.parametrize(
    "wrong",
    [{"crop": 300}, {"crop": 0}, {"method": "lanczos"}, {"rule": "fit"}, {"std": (0.0, 1.0, 1.0)}],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(UsageError):
        Preprocess(**wrong)
