import numpy as np
import pytest

from finedge.data import open_dataset
from finedge.errors import SystemProblem
from finedge.image import read_image
from finedge.spec import Preprocess
from finedge.train import decoded
from finedge.train.decoded import decoded_images
from finedge.train.loader import TrainingImages, batches
from finedge.train.recipe import Recipe


def pixels(items, recipe, epoch, read):
    images = TrainingImages(items, Preprocess(36, 32), recipe, epoch, read)
    groups = batches(images, range(len(items)), batch_size=12, workers=2)
    return np.concatenate([batch.frames for batch in groups])


def test_the_pixels_are_those_of_the_uncached_loader(pictures, monkeypatch):
    items = open_dataset(pictures).split("train")
    recipe = Recipe(size=32, augment="resized-crop", colour_jitter=0.2, rotation=5.0)
    files, real = [], read_image
    monkeypatch.setattr(decoded, "read_image", lambda path: files.append(path) or real(path))
    store = decoded_images([item.path for item in items])
    for epoch in (0, 1):
        plain, kept = (pixels(items, recipe, epoch, read) for read in (read_image, store.read))
        assert np.array_equal(plain, kept)
    assert sorted(files) == sorted(item.path for item in items)  # each file is decoded once


def test_a_set_larger_than_half_of_the_free_memory_is_refused(pictures, monkeypatch):
    paths = [item.path for item in open_dataset(pictures).split("train")]
    size = 36 * 48 * 40 * 3
    monkeypatch.setattr(decoded, "free_memory", lambda: 2 * size)
    decoded_images(paths)
    monkeypatch.setattr(decoded, "free_memory", lambda: 2 * size - 2)
    with pytest.raises(SystemProblem, match="--cache ram"):
        decoded_images(paths)


def test_free_memory_is_a_part_of_the_memory():
    assert 0 < decoded.free_memory() < 1 << 50
