"""Early stopping, and the best epoch as the result."""

import json
import shutil

import pytest

from finedge.errors import UsageError
from finedge.train.evaluate.command import evaluate
from finedge.train.run import load_run
from finedge.train.stopping import best_epoch, is_out_of_patience


def rows(*top1):
    return [{"epoch": n, "val": {"top1": value}} for n, value in enumerate(top1, 1)]


def test_the_best_epoch_is_the_first_of_equals():
    assert best_epoch(rows(0.1, 0.5, 0.5, 0.2)) == 2
    assert best_epoch([]) == best_epoch(rows(None)) == 0


@pytest.mark.parametrize(
    ("values", "patience", "stops"),
    [
        ((0.5, 0.4), 1, True),
        ((0.5, 0.4), 2, False),
        ((0.5, 0.5, 0.5), 2, True),
        ((0.5, 0.4, 0.6), 1, False),
        ((0.5, 0.4, 0.3), 0, False),
        ((), 1, False),
    ],
)
def test_training_stops_after_so_many_epochs_without_a_better_one(values, patience, stops):
    assert is_out_of_patience(rows(*values), patience=patience) is stops


@pytest.fixture(scope="module")
def run(train, pictures, tmp_path_factory):
    """A run with a rate so small that no epoch is better than the first; it keeps the best."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    result = train(
        out=out,
        data=pictures,
        model="plain",
        backbone="mobilenetv2_035",
        weights="none",
        size=32,
        batch_size=8,
        epochs=9,
        lr=1e-9,
        device="cpu",
        set=("patience=1", "keep=best", "freeze_norm=true", "optimizer=adamw"),
    )
    return out, result


def test_the_result_is_that_of_the_best_epoch(run):
    out, result = run
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert (len(lines), result["epochs"], result["best_epoch"]) == (2, 2, 1)
    assert evaluate(out, split="val", device="cpu")["top1"] == lines[0]["val"]["top1"]
    assert result["top1"] == lines[0]["val"]["top1"]


def test_a_run_that_stopped_early_is_finished(run, caplog):
    with caplog.at_level("WARNING", "finedge"):
        load_run(run[0])
    assert "--resume" not in caplog.text


def test_resuming_a_stopped_run_trains_nothing_unless_it_gets_patience(run, train, tmp_path):
    out = shutil.copytree(run[0], tmp_path / "run")
    assert train(out=out, resume=True, device="cpu")["epochs"] == 2
    more = train(out=out, resume=True, device="cpu", epochs=3, set=("patience=0",))
    assert (more["epochs"], more["best_epoch"]) == (3, 1)


@pytest.mark.parametrize("word", ["patience=3", "keep=best"])
def test_choosing_by_val_needs_a_val_split(train, settings, tmp_path, monkeypatch, word):
    from dataclasses import replace

    from finedge.train import session

    whole = session.open_dataset

    def without_val(*args, **options):
        data = whole(*args, **options)
        return replace(data, splits={**data.splits, "val": ()})

    monkeypatch.setattr(session, "open_dataset", without_val)
    with pytest.raises(UsageError, match="without a val split"):
        train(out=tmp_path / "run", **settings, set=(word,))
    assert not (tmp_path / "run").exists()
