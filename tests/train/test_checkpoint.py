import resource

import pytest
import torch

from finedge.errors import DataError
from finedge.train.checkpoint import (
    best_weights,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from finedge.train.ema import MovingAverage
from finedge.train.models import build_model
from finedge.train.optimizer import build_optimizer, remembered
from finedge.train.recipe import Recipe


def fresh(seed, ema=True):
    torch.manual_seed(seed)
    model = build_model("plain", num_classes=3, backbone="mobilenetv2_035").to(
        memory_format=torch.channels_last
    )
    return (
        model,
        build_optimizer(model, Recipe(), backbone_lr=0.1),
        MovingAverage(model, decay=0.9) if ema else None,
    )


def stepped(seed=0, ema=True):
    model, optimizer, average = fresh(seed, ema)
    model.loss(model(torch.randn(2, 3, 32, 32)), torch.tensor([0, 2])).backward()
    optimizer.step()
    if average:
        average.update(model)
    return model, optimizer, average


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_weights_momentum_average_and_epoch_come_back_bit_by_bit(tmp_path):
    model, optimizer, ema = stepped()
    save_checkpoint(tmp_path / "c", model, optimizer=optimizer, ema=ema, epoch=4)
    other, its_optimizer, its_ema = fresh(1)
    assert load_checkpoint(tmp_path / "c", other, optimizer=its_optimizer, ema=its_ema) == 4
    assert same(model.state_dict(), other.state_dict())
    assert same(ema.model.state_dict(), its_ema.model.state_dict())
    assert its_ema.updates == 1
    parameters = dict(other.named_parameters())
    pairs = zip(remembered(model, optimizer), remembered(other, its_optimizer), strict=True)
    for (name, buffer), (_, restored) in pairs:
        assert torch.equal(buffer, restored), name
        assert restored.stride() == parameters[name.removeprefix("momentum.")].stride(), name


@pytest.mark.parametrize("with_ema", [True, False])
def test_the_result_is_the_average_where_there_is_one(tmp_path, with_ema):
    model, optimizer, ema = stepped(ema=with_ema)
    save_checkpoint(tmp_path / "c", model, optimizer=optimizer, ema=ema, epoch=1)
    loaded = fresh(1)[0]
    assert load_weights(tmp_path / "c", loaded) == 1
    assert same(loaded.state_dict(), (ema.model if with_ema else model).state_dict())


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path):
    model, optimizer, ema = stepped()
    save_checkpoint(tmp_path / "c", model, optimizer=optimizer, ema=ema, epoch=1)
    old, limits = (tmp_path / "c").read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (10_000, limits[1])
    )  # the write stops half-way, as on a full disk
    try:
        with pytest.raises(OSError, match="too large"):
            save_checkpoint(tmp_path / "c", model, optimizer=optimizer, ema=ema, epoch=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "c").read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_damaged_or_missing_file_is_refused(tmp_path):
    model, optimizer, _ = stepped(ema=False)
    with pytest.raises(DataError, match="missing"):
        load_weights(tmp_path / "c", model)
    save_checkpoint(tmp_path / "c", model, optimizer=optimizer, ema=None, epoch=1)
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:-1000])
    with pytest.raises(DataError, match="damaged"):
        load_weights(tmp_path / "c", model)


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    model, optimizer, _ = stepped(ema=False)
    save_checkpoint(tmp_path / "c", model, optimizer=optimizer, ema=None, epoch=1)
    with pytest.raises(DataError, match="does not fit"):
        load_weights(
            tmp_path / "c", build_model("plain", num_classes=4, backbone="mobilenetv2_035")
        )


def test_adamw_comes_back_and_takes_the_same_next_step(tmp_path):
    def adamw(seed):
        torch.manual_seed(seed)
        model = build_model("plain", num_classes=3, backbone="mobilenetv2_035", dropout=0.0)
        recipe = Recipe(optimizer="adamw", layer_decay=0.9)
        return model, build_optimizer(model, recipe, backbone_lr=0.1)

    def step(model, optimizer):
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        model.loss(model(images), torch.tensor([0, 2])).backward()
        optimizer.step()

    model, optimizer = adamw(0)
    step(model, optimizer)
    save_checkpoint(tmp_path / "c", model, optimizer=optimizer, ema=None, epoch=1)
    other, its_optimizer = adamw(1)
    load_checkpoint(tmp_path / "c", other, optimizer=its_optimizer, ema=None)
    step(model, optimizer)
    step(other, its_optimizer)
    assert same(model.state_dict(), other.state_dict())


def test_the_best_weights_are_the_result_where_they_are_kept(tmp_path):
    model, optimizer, ema = stepped()
    best = fresh(5)[0].state_dict()
    save_checkpoint(tmp_path / "c", model, optimizer=optimizer, ema=ema, epoch=1, best=best)
    loaded = fresh(1)[0]
    load_weights(tmp_path / "c", loaded)
    assert same(loaded.state_dict(), best)
    assert same(best_weights(tmp_path / "c"), best)
