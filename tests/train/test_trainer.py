import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from finedge.errors import FinedgeError
from finedge.train.models import build_model
from finedge.train.run import load_run, recorded_data
from finedge.train.step import TrainingStep


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def interrupt_at(monkeypatch, step):
    """Let Ctrl-C come at the `step`-th training step."""
    taken, real = [], TrainingStep._loss

    def counted(self, batch):
        taken.append(batch)
        if len(taken) == step:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(TrainingStep, "_loss", counted)


def equal(one, two):
    first, second = (load_file(run / "checkpoint.safetensors") for run in (one, two))
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_the_loss_falls_and_every_epoch_leaves_a_line(train, tmp_path, settings):
    result = train(
        out=tmp_path / "run", **{**settings, "backbone": "resnet18", "epochs": 3, "lr": 0.005}
    )
    lines = rows(tmp_path / "run")
    assert [row["epoch"] for row in lines] == [1, 2, 3]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert {"loss", "lr", "val", "images_per_s", "seconds"} <= lines[0].keys()
    assert result["top1"] == lines[-1]["val"]["top1"]
    assert result["n"] == 18


@pytest.mark.parametrize("changed", [{"ema": 0.0}, {"ema": 0.9}, {"set": ("head_epochs=2",)}])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    train, tmp_path, settings, changed, monkeypatch
):
    more = {**settings, "epochs": 3, **changed}
    train(out=tmp_path / "whole", **more)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7)  # 4 steps an epoch: in the middle of the second
        with pytest.raises(KeyboardInterrupt):
            train(out=tmp_path / "broken", **more)
    assert [row["epoch"] for row in rows(tmp_path / "broken")] == [1]
    train(out=tmp_path / "broken", resume=True, device="cpu")
    assert equal(tmp_path / "whole", tmp_path / "broken")
    untimed = [
        [
            {k: v for k, v in row.items() if k in ("epoch", "loss", "lr", "val")}
            for row in rows(tmp_path / run)
        ]
        for run in ("whole", "broken")
    ]
    assert untimed[0] == untimed[1]


def test_a_run_interrupted_in_its_first_epoch_can_be_resumed(
    train, tmp_path, settings, monkeypatch
):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(out=tmp_path / "broken", **settings)
    assert train(out=tmp_path / "broken", resume=True, device="cpu")["epochs"] == 2


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(train, tmp_path, settings):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(out=tmp_path / name, **{**settings, "epochs": 1, "seed": seed})
    assert equal(tmp_path / "a", tmp_path / "b")
    assert not equal(tmp_path / "a", tmp_path / "c")


def test_divergence_stops_at_the_last_good_checkpoint_with_a_remedy(train, tmp_path, settings):
    with pytest.raises(FinedgeError, match=r"diverged in epoch 1(.|\n)*--resume --lr") as caught:
        train(out=tmp_path / "run", **{**settings, "lr": 1e30})
    assert caught.value.exit_code == 1
    assert all(torch.isfinite(p).all() for p in load_run(tmp_path / "run").model.parameters())
    assert train(out=tmp_path / "run", resume=True, lr=0.01, device="cpu")["epochs"] == 2


def test_autocast_in_bfloat16_trains(train, tmp_path, settings):
    (tmp_path / "r.toml").write_text('bf16 = "on"\n')
    result = train(
        out=tmp_path / "run", **{**settings, "epochs": 1}, recipe=str(tmp_path / "r.toml")
    )
    assert result["loss"] > 0


def test_frozen_stages_keep_their_weights_and_statistics(train, tmp_path, settings):
    train(out=tmp_path / "run", **settings, freeze=5)
    torch.manual_seed(0)  # the seed of the run: its initial weights again
    start = build_model("plain", num_classes=3, backbone="mobilenetv2_035").state_dict()
    end = load_run(tmp_path / "run").model.state_dict()
    changed = {
        name.split(".")[1]
        for name in start
        if not torch.equal(start[name], end[name]) and name.startswith("backbone.")
    }
    assert changed == {"conv_head", "bn2"}


@pytest.mark.parametrize("model", ["plain", "ca"])  # ca: new layers inside the backbone
def test_head_epochs_train_new_layers_only(train, tmp_path, settings, monkeypatch, model):
    run, more = (
        tmp_path / "run",
        {"model": model, "backbone": "resnet18", "set": ("head_epochs=1",)},
    )
    interrupt_at(monkeypatch, 5)  # 4 steps an epoch: the first one of all layers
    with pytest.raises(KeyboardInterrupt):
        train(out=run, **{**settings, **more})
    torch.manual_seed(0)
    start = build_model(model, num_classes=3, backbone="resnet18")
    new = {id(parameter) for parameter in start.new_parameters()}
    old = {name for name, p in start.named_parameters() if id(p) not in new}
    old |= {name for name in start.state_dict() if "running" in name and "gate" not in name}

    def kept():
        end = load_run(run).model.state_dict()
        return {n for n, tensor in start.state_dict().items() if torch.equal(tensor, end[n])}

    assert old <= kept()
    assert not {"head.weight", "head.bias"} & kept()
    monkeypatch.undo()
    train(out=run, resume=True, device="cpu")
    assert not old & kept()


def test_without_val_a_run_keeps_all_of_train_and_reports_no_accuracy(
    train, tmp_path, settings, pictures
):
    root = tmp_path / "pictures"
    for split in ("train", "test"):
        shutil.copytree(pictures / split, root / split)
    out = tmp_path / "run"
    options = {**settings, "data": root, "epochs": 1, "set": ("val=0.0",)}
    result = train(out=out, **options)
    assert (result["top1"], result["n"]) == (None, 0)
    record = json.loads((out / "run.json").read_text())
    assert record["recipe"]["val"] == record["data"]["cut"]["val"] == 0
    data = recorded_data(out)
    assert {s: len(items) for s, items in data.splits.items()} == {
        "train": 36,
        "val": 0,
        "test": 12,
    }
