import functools
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from finedge.errors import UsageError
from finedge.train.distributed import World
from finedge.train.recipe import Recipe
from finedge.train.run import load_run
from finedge.train.step import to_training_mode
from finedge.train.trainer import _steps

SUMS = 1e-5  # relative: the same gradients summed in another order, over a few steps at a low rate
FROZEN = 'freeze_norm = true\nlr = 0.001\n[options]\ndropout = 0.0\nhead_init = "small"\n'


@pytest.fixture
def trained(train, settings, tmp_path):
    """Train with a recipe's text and return the run's folder."""

    def run(name, recipe=FROZEN, **options):
        (tmp_path / f"{name}.toml").write_text(recipe)
        train(
            out=tmp_path / name,
            **{k: v for k, v in {**settings, "lr": None, **options}.items() if v},
            recipe=str(tmp_path / f"{name}.toml"),
        )
        return tmp_path / name

    return run


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("batch", "accumulate"), [(12, 3), (8, 10)]
)  # the second: 36 images in 8, 8, 8, 8 and 4
def test_accumulated_batches_are_one_big_batch(trained, batch, accumulate):
    whole = trained("whole", batch_size=36, epochs=4)
    parts = trained("parts", batch_size=batch, accumulate=accumulate, epochs=4)
    assert [row["loss"] for row in rows(parts)] == pytest.approx(
        [row["loss"] for row in rows(whole)], rel=SUMS
    )
    assert rows(whole)[-1]["loss"] != pytest.approx(rows(whole)[0]["loss"], rel=100 * SUMS)


def test_the_schedule_counts_steps_of_the_optimizer(trained):
    whole = trained("whole", batch_size=12, epochs=3)
    parts = trained("parts", batch_size=6, accumulate=2, epochs=3)
    assert [row["lr"] for row in rows(parts)] == [row["lr"] for row in rows(whole)]


def test_frozen_norms_keep_their_statistics_and_learn_their_weights(trained):
    run = trained("run", model="cnl", epochs=1)
    state = load_run(run).model.state_dict()
    means, variances = (
        [t for name, t in state.items() if name.endswith(end)]
        for end in ("running_mean", "running_var")
    )
    assert all((m == 0).all() for m in means)
    assert all((v == 1).all() for v in variances)
    assert not all((t == 1).all() for name, t in state.items() if "bn1.weight" in name)


def test_only_norms_are_frozen():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    to_training_mode(model, freeze_norm=True)
    assert [module.training for module in model] == [True, False, True]


def test_a_compiled_model_leaves_the_checkpoint_of_a_plain_one(trained, monkeypatch):
    monkeypatch.setattr(
        torch, "compile", functools.partial(torch.compile, backend="eager")
    )  # the same capture, without a C++ compiler
    plain, compiled = (
        trained(name, batch_size=36, epochs=1, compile=name == "compiled")
        for name in ("plain", "compiled")
    )
    names = [load_file(run / "checkpoint.safetensors").keys() for run in (plain, compiled)]
    assert names[0] == names[1]
    assert rows(compiled)[0]["loss"] == pytest.approx(rows(plain)[0]["loss"], rel=SUMS)
    assert load_run(compiled).record["recipe"]["compile"] is True


def test_a_step_counts_the_images_of_all_processes():
    cpu = torch.device("cpu")
    assert _steps(100, Recipe(batch_size=8, accumulate=3), World(cpu, 0, 4)) == (4, 24)
    assert _steps(10, Recipe(batch_size=8, accumulate=3), World(cpu)) == (1, 10)
    with pytest.raises(UsageError, match="multiple of 3"):
        _steps(100, Recipe(batch_size=8), World(cpu, 0, 3))
    with pytest.raises(UsageError, match="at least 24"):
        _steps(10, Recipe(batch_size=8, accumulate=3), World(cpu, 0, 4))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_shares_of_a_batch_are_the_batch(size):
    order, batch = list(range(100, 140)), 8
    shares = [World(torch.device("cpu"), rank, size).share(order) for rank in range(size)]
    for start in range(0, len(order), batch):
        part = slice(start // size, (start + batch) // size)
        assert (
            sorted(item for share in shares for item in share[part]) == order[start : start + batch]
        )
