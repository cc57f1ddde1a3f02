"""A batch of one image: refused where BatchNorm cannot train on it, and avoided elsewhere."""

import json

import pytest

from finedge.errors import UsageError
from finedge.train.loader import batched
from finedge.train.models import build_model
from finedge.train.recipe import Recipe
from finedge.train.step import TrainingStep
from finedge.train.trainable import require_trainable


@pytest.mark.parametrize(
    ("images", "size", "sizes"),
    [
        (9, 4, [4, 5]),
        (8, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
        (3, 2, [3]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_single_last_image_joins_its_neighbours(images, size, sizes):
    groups = batched(list(range(images)), size)
    assert [len(group) for group in groups] == sizes
    assert [index for group in groups for index in group] == list(range(images))


@pytest.mark.parametrize(
    ("model", "recipe", "starved"),
    [
        ("plain", Recipe(size=32), r"backbone\."),  # the last map is one position
        ("plain", Recipe(size=64), None),  # 2 x 2 positions
        ("plain", Recipe(size=64, start_size=32), r"backbone\."),  # the first epochs are smaller
        ("plain", Recipe(size=32, freeze_norm=True), None),
        # A head on averaged features, at any size.
        ("clca_cga", Recipe(size=64), "BatchNorm '.*' sees one value"),
        ("attend_rectify", Recipe(size=64), "gate"),
    ],
)
def test_the_model_itself_says_whether_one_image_is_enough(model, recipe, starved):
    built = build_model(model, num_classes=3, backbone="mobilenetv2_035")
    before = {name: value.clone() for name, value in built.state_dict().items()}
    if starved is None:
        require_trainable(built, recipe, images=1)
    else:
        with pytest.raises(UsageError, match=starved):
            require_trainable(built, recipe, images=1)
        require_trainable(built, recipe, images=2)
    assert all(value.equal(before[name]) for name, value in built.state_dict().items())


def test_batches_of_one_are_refused_before_anything_is_written(train, settings, tmp_path):
    with pytest.raises(UsageError, match="--batch-size 2"):
        train(out=tmp_path / "run", **{**settings, "batch_size": 1})
    assert not (tmp_path / "run").exists()


def test_batches_of_one_train_where_the_maps_are_large_enough(train, settings, tmp_path):
    assert (
        train(out=tmp_path / "run", **{**settings, "batch_size": 1, "size": 64, "epochs": 1})["n"]
        == 18
    )


def test_an_epoch_that_ends_with_one_image_sees_them_all(train, settings, tmp_path, monkeypatch):
    seen, real = [], TrainingStep._loss
    monkeypatch.setattr(
        TrainingStep,
        "_loss",
        lambda step, batch: seen.append(len(batch.targets)) or real(step, batch),
    )
    train(
        out=tmp_path / "run", **{**settings, "batch_size": 35, "accumulate": 2, "epochs": 1}
    )  # of 36
    assert seen == [36]
    seen.clear()
    train(out=tmp_path / "five", **{**settings, "batch_size": 7, "accumulate": 8, "epochs": 1})
    assert seen == [7, 7, 7, 7, 8]


def test_a_run_is_not_resumed_into_batches_of_one(train, settings, tmp_path):
    train(out=tmp_path / "run", **{**settings, "epochs": 1})
    before = (tmp_path / "run" / "run.json").read_text()
    with pytest.raises(UsageError, match="--batch-size 2"):
        train(out=tmp_path / "run", resume=True, batch_size=1, epochs=2, device="cpu")
    assert (tmp_path / "run" / "run.json").read_text() == before
    assert json.loads(before)["recipe"]["batch_size"] == 8
