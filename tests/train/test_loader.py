from dataclasses import replace

import numpy as np
import pytest
import torch

from finedge.data import Item, open_dataset
from finedge.errors import DataError
from finedge.image import read_image
from finedge.preprocess import preprocess
from finedge.spec import Preprocess
from finedge.train.backbones import BACKBONES
from finedge.train.loader import (
    EvaluationImages,
    TrainingImages,
    balanced,
    batches,
    normalise,
    scaled,
)
from finedge.train.recipe import Recipe

HOW = Preprocess(resize=37, crop=32)


@pytest.fixture
def items(pictures):
    return open_dataset(pictures).split("train")


@pytest.mark.parametrize("name", BACKBONES)
def test_validation_sees_the_pixels_of_the_device(items, name):
    how = replace(BACKBONES[name].preprocess, resize=37, crop=32)
    frames = torch.cat(
        [
            b.frames
            for b in batches(
                EvaluationImages(items, how), range(len(items)), batch_size=5, workers=2
            )
        ]
    )
    assert np.array_equal(
        frames.numpy(), np.stack([preprocess(read_image(i.path), how) for i in items])
    )


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_keep_the_order_whatever_the_number_of_threads(items, workers):
    order = [3, 35, 0, 12, 7]
    made = list(batches(EvaluationImages(items, HOW), order, batch_size=2, workers=workers))
    assert [len(b.targets) for b in made] == [2, 3]  # the single last one joins its neighbours
    assert torch.cat([b.targets for b in made]).tolist() == [items[i].label for i in order]


def test_augmentation_is_a_function_of_seed_epoch_and_index(items):
    def images(seed, epoch):
        return TrainingImages(items, HOW, Recipe(seed=seed, augment="resized-crop"), epoch)

    same, again = images(1, 2)[5][0], images(1, 2)[5][0]
    assert np.array_equal(same, again)
    assert not np.array_equal(same, images(1, 3)[5][0])
    assert not np.array_equal(same, images(2, 2)[5][0])
    assert images(1, 2).order() == images(1, 2).order() != images(1, 3).order()
    assert sorted(images(1, 2).order()) == list(range(len(items)))


def test_normalising_is_mean_and_std_per_channel():
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    how = Preprocess(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    made = normalise(torch.from_numpy(frames), how)
    assert made.shape == (2, 3, 4, 5)
    assert made.is_contiguous(memory_format=torch.channels_last)
    expected = (frames / 255 - np.array(how.mean)) / np.array(how.std)
    np.testing.assert_allclose(made.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


def test_another_side_keeps_the_share_that_is_cut():
    assert scaled(Preprocess(resize=256, crop=224), 112) == Preprocess(resize=128, crop=112)


def test_an_image_that_breaks_while_training_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not an image")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        list(
            batches(
                EvaluationImages([Item(tmp_path / "broken.jpg", 0)], HOW),
                [0],
                batch_size=1,
                workers=1,
            )
        )


def test_balanced_sampling_shows_equally_many_of_each_class():
    labels = [0] * 20 + [1] * 3 + [2] * 8
    order = balanced(labels, generator=np.random.default_rng(0))
    assert len(order) == len(set(order)) == len(labels)
    shown = [labels[index % len(labels)] for index in order]
    assert sorted(shown.count(label) for label in range(3)) == [10, 10, 11]
    # A class goes through all its images before one comes again.
    rare = [index % len(labels) for index in order if 20 <= index % len(labels) < 23]
    assert {rare.count(index) for index in (20, 21, 22)} <= {3, 4}


def test_an_image_that_comes_again_is_augmented_in_another_way(items):
    recipe = Recipe(sampling="balanced", augment="resized-crop")
    images = TrainingImages(items[:14], HOW, recipe, 0)  # 12 of one class, 2 of another
    assert images.order() == images.order()
    assert images.order() != TrainingImages(items[:14], HOW, recipe, 1).order()
    assert max(images.order()) >= 14
    assert images[13][1] == images[27][1]
    assert not np.array_equal(images[13][0], images[27][0])
