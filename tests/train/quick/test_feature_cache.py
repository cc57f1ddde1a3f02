import copy
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch

from finedge.errors import SystemProblem
from finedge.train.loader import EvaluationImages, TrainingImages, normalise
from finedge.train.models import build_model
from finedge.train.quick import feature_cache as module
from finedge.train.quick import map_engine, map_files
from finedge.train.quick.cache_record import cache_record
from finedge.train.quick.cached_backbone import CachedBackbone, map_shapes
from finedge.train.quick.feature_cache import plan_cache
from finedge.train.quick.map_engine import map_function


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("maps")


@pytest.fixture(scope="module")
def cache(small, place):
    plan = plan_cache(small.model.backbone, small.data, place=place, **small.arguments)
    plan.require_room()
    return plan.fill(small.model.backbone, workers=1)


def live(small, images, indices):
    """The maps that the backbone computes from the pixels of some images."""
    frames = torch.from_numpy(np.stack([images[index][0] for index in indices]))
    pixels = normalise(frames, small.arguments["preprocess"])
    blocks = small.arguments["shapes"]
    with torch.no_grad():
        return small.model.backbone.eval().run(pixels, taps=blocks)[1]


def close(one, other):
    return one.keys() == other.keys() and all(
        torch.allclose(one[block], other[block], rtol=2e-3, atol=2e-3) for block in one
    )


def test_the_maps_are_those_of_the_pixels_of_their_view(small, cache):
    items, preprocess = small.data.split("train"), small.arguments["preprocess"]
    evaluation = EvaluationImages(items, preprocess)
    seeded = replace(small.arguments["recipe"], seed=0)
    assert close(cache.maps(0, [0, 5]), live(small, evaluation, [0, 5]))
    augmented = TrainingImages(items, preprocess, seeded, 2)
    assert close(cache.maps(2, [3]), live(small, augmented, [3]))
    assert not close(cache.maps(1, [3]), live(small, augmented, [3]))


def test_each_image_of_a_batch_can_have_its_own_view(cache):
    mixed = cache.maps([2, 0, 1], [7, 7, 4])
    for block, maps in mixed.items():
        assert torch.equal(maps[0], cache.maps(2, [7])[block][0])
        assert torch.equal(maps[1], cache.maps(0, [7])[block][0])
        assert torch.equal(maps[2], cache.maps(1, [4])[block][0])


def test_val_has_its_own_maps_and_labels(small, cache):
    items = small.data.split("val")
    assert cache.labels["val"].tolist() == [item.label for item in items]
    images = EvaluationImages(items, small.arguments["preprocess"])
    assert close(cache.maps(0, [1], split="val"), live(small, images, [1]))


def plan(small, place, **changes):
    return plan_cache(
        small.model.backbone, small.data, place=place, **{**small.arguments, **changes}
    )


def test_a_complete_cache_is_used_again(small, cache, place):
    again = plan(small, place)
    assert again.missing == ()
    assert again.missing_bytes == 0
    files = sum(path.stat().st_size for path in cache.folder.glob("*.npy"))
    assert 0 < files - again.bytes < 256 * len(list(cache.folder.glob("*.npy")))  # the headers


def test_only_what_shapes_the_maps_changes_the_folder(small, cache, place):
    recipe = small.arguments["recipe"]
    same = replace(recipe, lr=0.3, epochs=7, seed=4, options={"dropout": 0.0})
    assert plan(small, place, recipe=same).folder == cache.folder
    assert plan(small, place, recipe=replace(recipe, rotation=5.0)).folder != cache.folder
    other = replace(small.arguments["preprocess"], method="cv2-area")
    assert plan(small, place, preprocess=other).folder != cache.folder
    fewer = {**small.data.splits, "train": small.data.split("train")[1:]}
    moved = replace(small.data, splits=fewer)
    record = cache_record(
        small.model.backbone, moved, preprocess=small.arguments["preprocess"], recipe=recipe
    )
    assert record.key != cache.folder.name
    torch.manual_seed(1)
    weights = build_model("plain", num_classes=3, backbone="mobilenetv2_035").backbone
    record = cache_record(
        weights, small.data, preprocess=small.arguments["preprocess"], recipe=recipe
    )
    assert record.key != cache.folder.name


def test_more_views_add_files_and_keep_the_others(small, cache, place):
    more = plan(small, place, views=3)
    assert more.folder == cache.folder
    assert [(view.split, view.view) for view, _ in more.missing] == [("train", 3)]


def test_a_damaged_file_is_computed_again(small, cache, place):
    path = sorted(cache.folder.glob("val.0.*.npy"))[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert plan(small, place).missing_bytes > 0
    plan(small, place).fill(small.model.backbone, workers=1)
    assert path.read_bytes() == whole


def test_interrupted_caching_goes_on_where_it_stopped(small, tmp_path, monkeypatch):
    written, real = [], map_files.batches

    def stops(images, order, **options):
        written.append(images)
        for batch in real(images, order, **options):
            yield batch
            if len(written) == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(map_files, "batches", stops)
        with pytest.raises(KeyboardInterrupt):
            plan(small, tmp_path).fill(small.model.backbone, workers=1)
    rest = plan(small, tmp_path)
    assert len(rest.missing) == 2  # of 4 views: two were whole, and nothing of the third is left
    blocks = len(small.arguments["shapes"])
    assert len(list(rest.folder.iterdir())) == 2 * blocks + 2  # the record and the lock
    rest.fill(small.model.backbone, workers=1)
    assert plan(small, tmp_path).missing == ()


def test_a_full_disk_is_refused_before_anything_is_written(small, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(1, 1, 1 << 20))
    with pytest.raises(SystemProblem, match=r"MiB of feature maps, and 1 MiB free"):
        plan(small, tmp_path).require_room()
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_are_trained_stay_in_training_mode(small, tmp_path):
    backbone = CachedBackbone(copy.deepcopy(small.model.backbone), stages=2).train()
    shapes = map_shapes(small.model, size=small.arguments["recipe"].size, stages=2)
    plan(small, tmp_path, shapes=shapes, views=0).fill(backbone, workers=1)
    modes = [backbone.get_submodule(block).training for block in backbone.chain]
    assert modes == sorted(modes)
    assert modes[0] is False
    assert modes[-1] is True


def test_maps_of_onnx_runtime_are_those_of_pytorch(small, caplog):
    backbone, blocks = small.model.backbone, list(small.arguments["shapes"])
    images = torch.randn(3, 3, 32, 32)
    with caplog.at_level("INFO"):
        compute = map_function(backbone, blocks, size=32, device=torch.device("cpu"))
    assert "in PyTorch" not in caplog.text
    with torch.no_grad():
        expected = backbone.run(images, taps=blocks)[1]
    for block, maps in compute(images).items():
        torch.testing.assert_close(maps, expected[block], rtol=1e-3, atol=1e-3)


def test_a_backbone_that_cannot_be_exported_runs_in_pytorch(small, monkeypatch, caplog):
    def refuse(*_, **__):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(map_engine, "onnx_runtime_maps", refuse)
    blocks = list(small.arguments["shapes"])
    with caplog.at_level("INFO"), torch.no_grad():
        compute = map_function(small.model.backbone, blocks, size=32, device=torch.device("cpu"))
        assert list(compute(torch.randn(2, 3, 32, 32))) == blocks
    assert "no such operator" in caplog.text
