import json
import sys
from types import SimpleNamespace

import pytest

from finedge.errors import SystemProblem
from finedge.train.recipe import Recipe
from finedge.train.writers import WRITERS, scalars

ROW = {
    "epoch": 3,
    "loss": 0.5,
    "val": {"top1": 0.75, "top5": None, "n": 4, "wilson95": [0.3, 0.9]},
    "profile": {"data": 0.1},
}


def test_only_numbers_are_written_those_of_val_by_their_name():
    assert scalars(ROW) == {"loss": 0.5, "val/top1": 0.75, "val/n": 4.0}


@pytest.mark.parametrize(
    ("kind", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")]
)
def test_a_missing_package_is_named_with_its_pip_line(monkeypatch, tmp_path, kind, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemProblem, match=f"pip install {kind}") as error:
        WRITERS[kind](tmp_path, Recipe(), epoch=0)
    assert error.value.exit_code == 3


def test_mlflow_gets_the_recipe_and_every_row(monkeypatch, tmp_path):
    calls = []
    names = ("start_run", "log_params", "log_metrics", "end_run")
    fake = {
        name: lambda *words, _name=name, **options: calls.append((_name, words, options))
        for name in names
    }
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(**fake))
    writer = WRITERS["mlflow"](tmp_path / "birds", Recipe(epochs=7), epoch=2)
    writer.write(ROW)
    writer.close()
    assert [name for name, _, _ in calls] == list(names)
    assert calls[0][2] == {"run_name": "birds"}
    assert calls[1][1][0]["epochs"] == 7
    assert calls[2] == (
        "log_metrics",
        ({"loss": 0.5, "val/top1": 0.75, "val/n": 4.0},),
        {"step": 3},
    )


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = WRITERS["tensorboard"](tmp_path, Recipe(), epoch=2)
    writer.write(ROW)
    writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("val/top1")] == [(3, 0.75)]


def test_training_writes_the_metrics_of_every_epoch(monkeypatch, train, settings, tmp_path):
    rows = []
    fake = SimpleNamespace(write=rows.append, close=lambda: rows.append("closed"))
    monkeypatch.setitem(WRITERS, "tensorboard", lambda path, recipe, epoch: fake)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace())
    train(out=tmp_path / "run", **settings, log_to="tensorboard")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert rows == [*map(json.loads, lines), "closed"]


def test_a_missing_package_leaves_no_run(monkeypatch, train, settings, tmp_path):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SystemProblem, match="pip install mlflow"):
        train(out=tmp_path / "run", **settings, log_to="mlflow")
    assert not (tmp_path / "run").exists()
