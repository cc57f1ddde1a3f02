"""Augmentation: the library's pixels, our generator's numbers, the evaluation's resampling."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2 import functional as F

from finedge.image import read_image
from finedge.preprocess import preprocess
from finedge.spec import Preprocess
from finedge.train.augment import augment, recoloured, rotated
from finedge.train.backbones import BACKBONES
from finedge.train.recipe import Recipe

HOW = Preprocess(resize=37, crop=32)
KINDS = {"resized-crop": {"max_area": 1.25}, "crop": {}, "pad-crop": {"pad": 4}}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def augmented(frame, seed, how=HOW, **recipe):
    return augment(
        frame, how, recipe=Recipe(size=32, **recipe), generator=np.random.default_rng(seed)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(40, 48), (200, 31), (1, 9)])
def test_augmented_images_have_the_networks_size(kind, shape):
    for seed in range(20):
        image = augmented(
            noise(*shape), seed, augment=kind, colour_jitter=0.4, rotation=30, **KINDS[kind]
        )
        assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_depend_on_the_generator_and_not_on_threads(kind):
    frame = noise(60, 80)

    def make(seed):
        return augmented(frame, seed, augment=kind, colour_jitter=0.4, rotation=30, **KINDS[kind])

    alone = [make(seed) for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(make, range(64)))
    assert np.array_equal(alone, together)
    assert len({image.tobytes() for image in alone}) == 64


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("kind", ["crop", "pad-crop"])
def test_a_crop_of_everything_is_the_evaluated_image_or_its_mirror(name, kind):
    how = replace(BACKBONES[name].preprocess, resize=32, crop=32)
    plain = preprocess(noise(64, 64), how)
    made = [augmented(noise(64, 64), seed, how, augment=kind) for seed in range(20)]
    mirrored = [np.array_equal(image, plain[:, ::-1]) for image in made]
    assert all(m or np.array_equal(image, plain) for m, image in zip(mirrored, made, strict=True))
    assert 0 < sum(mirrored) < 20


@pytest.mark.parametrize("rule", ["short-side", "squash"])
def test_pad_crop_cuts_a_square_with_a_reflected_border(rule):
    frame, how = noise(50, 90), Preprocess(resize=40, crop=32, rule=rule)
    size = (40, 40) if rule == "squash" else (72, 40)
    whole = np.pad(
        np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)),
        ((6, 6), (6, 6), (0, 0)),
        mode="reflect",
    )
    windows = np.lib.stride_tricks.sliding_window_view(whole, (32, 32, 3))[:, :, 0].reshape(
        -1, 32 * 32 * 3
    )
    for seed in range(10):
        image = augmented(frame, seed, how, augment="pad-crop", pad=6, flip=False)
        assert (windows == image.ravel()).all(axis=1).any()


def test_a_border_grows_and_shrinks_with_the_image():
    frame, small = np.full((64, 64, 3), 9, np.uint8), Preprocess(resize=16, crop=16)
    frame[20:44, 20:44] = 200
    assert augmented(frame, 0, small, augment="pad-crop", pad=8).shape == (16, 16, 3)


@pytest.mark.parametrize("max_area", [1.0, 1.25])
def test_boxes_larger_than_the_image_are_drawn_again(max_area):
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None], (64, 64))
    frame = np.stack([ramp, ramp.T, ramp], axis=2)
    images = [
        augmented(frame, seed, augment="resized-crop", min_area=0.08, max_area=max_area, flip=False)
        for seed in range(300)
    ]
    shares = [
        np.ptp(image[:, 16, 0].astype(float)) * np.ptp(image[16, :, 1].astype(float)) / 255**2
        for image in images
    ]
    assert 0.02 < min(shares) < 0.2
    assert max(shares) > 0.8
    assert 0.4 < np.mean(shares) < 0.55


def test_turning_by_nothing_changes_nothing_and_by_a_right_angle_is_exact():
    image = Image.fromarray(noise(32, 32))
    assert np.array_equal(rotated(image, 0.0), image)
    assert np.array_equal(rotated(image, 90.0), np.rot90(np.asarray(image)))


@pytest.mark.parametrize("degrees", [-45.0, -17.0, 8.0, 45.0, 135.0])
def test_corners_of_a_turned_image_are_filled_with_its_own_pixels(degrees):
    image = Image.fromarray(np.random.default_rng(0).integers(120, 136, (48, 48, 3), np.uint8))
    assert np.asarray(rotated(image, degrees)).min() >= 119


def test_factors_of_one_leave_the_colours_alone():
    image = Image.fromarray(noise(8, 8))
    assert np.array_equal(recoloured(image, np.ones(3)), image)
    assert np.asarray(recoloured(image, np.array([0.5, 1, 1]))).mean() == pytest.approx(
        np.asarray(image).mean() / 2, abs=1
    )
    grey = np.asarray(recoloured(image, np.array([1, 1, 1e-9])))
    assert np.ptp(grey.astype(int), axis=2).max() <= 1


def test_augmentation_uses_no_random_numbers_but_the_generators(shared_data):
    frame = read_image(sorted((shared_data / "grocery240").rglob("*.jpg"))[0])
    state = np.random.get_state()[1].copy()
    augmented(frame, 0, augment="resized-crop", colour_jitter=0.4, rotation=30)
    assert np.array_equal(np.random.get_state()[1], state)


def test_hue_is_torchvisions_drawn_from_the_generator():
    frame, how = noise(40, 40), Preprocess(resize=32, crop=32)
    plain = augmented(frame, 3, how, augment="crop", flip=False)
    shifted = augmented(frame, 3, how, augment="crop", flip=False, hue=0.1)
    generator = np.random.default_rng(3)
    augment(frame, how, recipe=Recipe(size=32, augment="crop", flip=False), generator=generator)
    factor = float(generator.uniform(-0.1, 0.1))
    expected = np.asarray(F.adjust_hue(Image.fromarray(plain), factor))
    assert np.array_equal(shifted, expected)
    assert not np.array_equal(shifted, plain)
