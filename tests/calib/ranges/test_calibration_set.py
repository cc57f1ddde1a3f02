import shutil
from collections import Counter

import cv2
import numpy as np
import pytest

from finedge.calib.ranges.calibration_set import draw_sample, is_noise
from finedge.data import Item, open_dataset
from finedge.errors import DataError, UsageError
from finedge.golden import synthetic_frame
from finedge.subset import balanced_order
from tests.calib.conftest import SPEC, pictures


@pytest.fixture
def copy(picture_folder, tmp_path):
    return shutil.copytree(picture_folder, tmp_path / "copy")


def test_the_sample_is_even_over_the_classes(picture_folder):
    sample = draw_sample(open_dataset(picture_folder), images=20)
    assert Counter(i.label for i in sample.items) == {0: 5, 1: 5, 2: 5, 3: 5}


def test_every_prefix_is_even_while_all_classes_last(tmp_path):
    items = tuple(
        Item(tmp_path / f"{label}-{i}", label)
        for label, count in enumerate((2, 9, 5))
        for i in range(count)
    )
    order = balanced_order(items, seed=3)
    assert set(order) == set(items)
    assert all(
        max(c.values()) - min(c.get(k, 0) for k in range(3)) <= 1
        for n in range(1, 7)
        for c in [Counter(i.label for i in order[:n])]
    )


def test_the_same_seed_draws_the_same_images(picture_folder):
    data = open_dataset(picture_folder)
    assert draw_sample(data, images=12, seed=5) == draw_sample(data, images=12, seed=5)
    assert draw_sample(data, images=12, seed=5) != draw_sample(data, images=12, seed=6)


def test_only_training_images_are_drawn(picture_folder):
    sample = draw_sample(open_dataset(picture_folder), images=1000)
    assert len(sample.items) == 48
    assert {i.path.parts[-3] for i in sample.items} == {"train"}


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_image_of_an_evaluated_split_is_refused_by_its_content(copy, split):
    victim = next((copy / "train" / "level").iterdir())
    shutil.copy(victim, copy / split / "level" / "renamed.png")
    with pytest.raises(DataError, match="also in the evaluated splits") as error:
        draw_sample(open_dataset(copy), images=48)
    assert error.value.exit_code == 4
    assert "renamed.png" in str(error.value)


def test_a_split_without_images_is_refused(picture_folder):
    data = open_dataset(picture_folder)
    with pytest.raises(DataError, match="no images in split 'train'"):
        draw_sample(type(data)(data.root, data.layout, data.labels, {"train": ()}))


@pytest.mark.parametrize("name", ["none", "random"])
def test_a_name_instead_of_images_is_refused(name, tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        open_dataset(tmp_path / name)


@pytest.mark.parametrize(
    "drawn", [lambda rng: rng.integers(0, 256, (48, 48, 3)), lambda rng: np.full((48, 48, 3), 90)]
)
def test_noise_and_single_colours_are_refused(copy, drawn):
    rng = np.random.default_rng(0)
    for file in (copy / "train").rglob("*.png"):
        cv2.imwrite(str(file), drawn(rng).astype(np.uint8))
    with pytest.raises(DataError, match="noise or one colour"):
        draw_sample(open_dataset(copy), images=8)


def test_pictures_are_not_taken_for_noise():
    assert not is_noise(synthetic_frame())
    assert not any(is_noise(frame) for frame in pictures(8, seed=0)[0])


def test_a_broken_file_is_passed_over_and_logged(copy, caplog):
    broken = next((copy / "train" / "level").iterdir())
    broken.write_bytes(b"not an image")
    sample = draw_sample(open_dataset(copy), images=48)
    assert broken not in {i.path for i in sample.items}
    assert str(broken) in caplog.text


def test_too_many_broken_files_are_refused(copy):
    for file in (copy / "train" / "level").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        draw_sample(open_dataset(copy), images=48)


def test_no_images_at_all_are_refused(picture_folder):
    with pytest.raises(UsageError, match="--images 0"):
        draw_sample(open_dataset(picture_folder), images=0)


def test_batches_are_preprocessed_in_order(picture_folder):
    sample = draw_sample(open_dataset(picture_folder), images=6)
    found = list(sample.batches(SPEC.preprocess, size=4))
    assert [b.shape for b in found] == [(4, 48, 48, 3), (2, 48, 48, 3)]
    assert (found[0][0] == cv2.imread(str(sample.items[0].path))[..., ::-1]).all()
