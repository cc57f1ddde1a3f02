import json

import pytest
import torch

from finedge.calib.sweep.command import sweep
from finedge.calib.sweep.show import AT_EDGE, markdown
from finedge.errors import DataError, FinedgeError, SystemProblem, UsageError
from finedge.locks import locked
from finedge.train.evaluate.accuracy import predictions
from finedge.train.run import load_run, recorded_data
from finedge.train.sweep import execute
from finedge.train.sweep.choose import chosen_settings
from finedge.train.sweep.file import read_sweep
from finedge.train.sweep.frozen import FrozenStage
from finedge.train.sweep.plan import SweepRun, groups, settings
from finedge.train.sweep.rows import Rows
from tests.train.sweep.conftest import rows

# Its new layers are inside the backbone, whose maps are cached.
BROKEN = "[families.broken]\nmodel = 'ca'\n"
REFUSAL = "its new layers sit inside the backbone"


@pytest.fixture(scope="module")
def finished(sweep_file, pictures, tmp_path_factory):
    """A finished sweep with two rates, two seeds and a family that fails."""
    out = tmp_path_factory.mktemp("out")
    path = sweep_file(rates=(0.01, 1e-6), more=BROKEN)
    arguments = {"out": out, "data": (f"pictures={pictures}",), "workers": 1}
    return path, arguments, sweep(path, **arguments, test=True)


def lines(result):
    return {line["family"]: line for line in result["tables"][0]["lines"]}


def test_val_chooses_and_every_seed_of_the_choice_answers_on_test(finished):
    _, arguments, result = finished
    trained = [row for row in rows(arguments["out"]) if row["family"] == "levels"]
    searched = [row for row in trained if row["seed"] == 0]
    best = max(searched, key=lambda row: (row["val"]["top1"], -row["val"]["loss"]))
    line = lines(result)["levels"]
    assert line["chosen"] == best["point"]
    assert (line["seeds"], line["tested"], line["published"]) == (2, 2, 0.9)
    tested = [row for row in rows(arguments["out"], "test") if row["family"] == "levels"]
    assert {(row["digest"], row["seed"], row["n"]) for row in tested} == {
        (best["digest"], seed, 12) for seed in (0, 1)
    }
    difference = line["against"]["plain"]
    assert (difference["seeds"], difference["images"]) == (2, 12)
    expected = 100 * (line["test"] - lines(result)["plain"]["test"])
    assert difference["mean"] == pytest.approx(expected)


def test_a_failure_is_a_row_and_the_sweep_goes_on(finished):
    _, arguments, result = finished
    failed = [row for row in rows(arguments["out"]) if "error" in row]
    assert {row["family"] for row in failed} == {"broken"}
    assert REFUSAL in failed[0]["error"]
    line = lines(result)["broken"]
    assert (line["failed"], line["seeds"], line["chosen"]) == (2, 0, {})
    assert REFUSAL in (arguments["out"] / "table.md").read_text()


def test_the_same_call_again_trains_nothing(finished, monkeypatch):
    path, arguments, result = finished

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("finedge.train.sweep.frozen.train_head", never)
    assert sweep(path, **arguments, test=True) == result


def test_only_failed_rows_are_tried_again(finished, monkeypatch):
    path, arguments, _ = finished
    tried = []
    monkeypatch.setattr(execute, "error_text", lambda error: tried.append(error) or "again")
    sweep(path, **arguments, retry_failed=True)
    assert len(tried) == 2


def test_a_choice_stays_once_test_was_read(finished):
    path, arguments, result = finished
    chosen = lines(result)["plain"]["chosen"]
    other = next(
        file
        for file in (arguments["out"] / "rows").rglob("plain-*-s0.json")
        if json.loads(file.read_text())["point"] != chosen
    )
    row = json.loads(other.read_text())
    before, better = other.read_text(), {**row, "val": {**row["val"], "top1": 1.0, "loss": 0.0}}
    other.write_text(json.dumps(better))
    try:
        assert lines(sweep(path, **arguments, table=True))["plain"]["chosen"] == chosen
    finally:
        other.write_text(before)


def test_a_sweep_that_was_interrupted_keeps_its_rows(sweep_file, pictures, tmp_path, monkeypatch):
    path, arguments = sweep_file(), {"out": tmp_path, "data": (f"pictures={pictures}",)}
    train, count = execute._train, []

    def interrupted(*words, **options):
        if count:
            raise KeyboardInterrupt
        count.append(train(*words, **options))

    monkeypatch.setattr(execute, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(path, **arguments, workers=1)
    assert [row["family"] for row in rows(tmp_path)] == ["plain"]
    (before,) = (p.stat().st_mtime_ns for p in (tmp_path / "rows").rglob("*.json"))
    monkeypatch.setattr(execute, "_train", train)
    sweep(path, **arguments, workers=1, only=("levels",))
    after = {p.name.split("-")[0]: p.stat().st_mtime_ns for p in tmp_path.rglob("rows/**/*.json")}
    assert after["plain"] == before
    assert "levels" in after


def test_a_dry_run_counts_and_writes_nothing(sweep_file, tmp_path):
    path = sweep_file(rates=(0.01, 0.1))
    result = sweep(path, out=tmp_path / "out", dry_run=True)
    (group,) = result["groups"]
    assert (group["search"], group["more_seeds"], result["runs"]) == (4, 2, 6)
    assert not (tmp_path / "out").exists()


def test_a_data_set_without_a_place_is_named(sweep_file, tmp_path):
    with pytest.raises(UsageError, match="'pictures'"):
        sweep(sweep_file(), out=tmp_path)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("rows", "[]"),
        ("rows", "null"),
        ("rows", '{"val": {"top1": 0.5, "n": 12}, "parameters": 1, "point": {}}'),
        ("rows", '{"val": {"top1": NaN, "n": 1, "loss": 1}, "parameters": 1, "point": {}}'),
        ("test", '{"top1": 0.5, "n": 12, "right": "zz"}'),
        ("test", '{"top1": 0.5, "n": 12, "right": "00"}'),
        ("chosen", '["plain"]'),
    ],
)
def test_a_damaged_file_is_named_and_can_be_deleted(finished, kind, text):
    path, arguments, result = finished
    chosen = lines(result)["plain"]["chosen"]
    files = sorted((arguments["out"] / kind).rglob("plain-*-s0.json" if kind != "chosen" else "*"))
    file = next(f for f in files if f.is_file() and _is_of(f, chosen))
    before = file.read_text()
    file.write_text(text)
    try:
        with pytest.raises(DataError, match=str(file)) as caught:
            sweep(path, **arguments, table=True)
        assert "delete it" in caught.value.fix
    finally:
        file.write_text(before)


def _is_of(file, chosen):
    return json.loads(file.read_text()).get("point", chosen) == chosen


def test_answers_to_other_images_are_not_compared(finished):
    path, arguments, _ = finished
    file = next((arguments["out"] / "test").rglob("levels-*-s1.json"))
    before = file.read_text()
    file.write_text(json.dumps({**json.loads(before), "n": 11}))
    try:
        with pytest.raises(DataError, match="have 11, 12 images"):
            sweep(path, **arguments, table=True)
    finally:
        file.write_text(before)


def test_damaged_weights_of_a_head_are_named(finished):
    path, arguments, result = finished
    out = arguments["out"]
    test = next((out / "test").rglob("levels-*-s1.json"))
    weights = out / "weights" / test.relative_to(out / "test").with_suffix("")
    rows_before, weights_before = test.read_text(), weights.read_bytes()
    test.unlink()
    weights.write_bytes(weights_before[:100])
    try:
        assert lines(sweep(path, **arguments, test=True))["levels"]["tested"] == 1
        weights.write_bytes(weights_before)
        again = lines(sweep(path, **arguments, test=True))["levels"]
        assert again["test"] == lines(result)["levels"]["test"]
    finally:
        test.write_text(rows_before)


def test_a_full_disk_stops_the_sweep_and_makes_no_row(sweep_file, pictures, tmp_path, monkeypatch):
    path, arguments = sweep_file(), {"out": tmp_path, "data": (f"pictures={pictures}",)}
    with monkeypatch.context() as patch:
        patch.setattr("finedge.train.quick.feature_cache._free_bytes", lambda _: 0)
        with pytest.raises(SystemProblem, match="of feature maps"):
            sweep(path, **arguments, workers=1)
    assert rows(tmp_path) == []


def test_two_processes_do_not_work_on_one_folder(finished):
    path, arguments, result = finished
    with locked(arguments["out"] / "lock"), pytest.raises(UsageError, match="another sweep"):
        sweep(path, **arguments)
    assert lines(sweep(path, **arguments))["plain"] == lines(result)["plain"]


@pytest.mark.parametrize("words", [("pictures=missing",), ("pictures=a", "pictures=b")])
def test_a_wrong_place_of_a_data_set_makes_no_rows(sweep_file, tmp_path, words):
    with pytest.raises(FinedgeError):
        sweep(sweep_file(), out=tmp_path / "out", data=words)
    assert not (tmp_path / "out").exists()


def test_the_table_of_a_folder_that_is_missing_is_refused(sweep_file, tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        sweep(sweep_file(), out=tmp_path / "none", table=True)


def test_a_choice_that_left_the_file_is_named(finished):
    path, arguments, _ = finished
    text = path.read_text()
    path.write_text(text.replace("lr = [0.01, 1e-06]", "lr = [0.5, 0.6]"))
    try:
        line = lines(sweep(path, **arguments, table=True))["plain"]
    finally:
        path.write_text(text)
    assert "is not in the file" in line["errors"][0]


def test_a_fine_tuned_sweep_makes_runs(sweep_file, pictures, tmp_path):
    path = sweep_file(stage="fine-tuned")
    path.write_text(path.read_text().replace("seeds = 2", "seeds = 1"))
    arguments = {"out": tmp_path, "data": (f"pictures={pictures}",), "device": "cpu"}
    result = sweep(path, **arguments, only=("plain",), test=True)
    line = lines(result)["plain"]
    assert (line["seeds"], line["tested"], line["int8"]) == (1, 1, None)
    (run,) = (tmp_path / "weights").rglob("run.json")
    assert json.loads(run.read_text())["recipe"]["size"] == 32


def test_frozen_heads_start_from_the_run_that_the_file_names(sweep_file, pictures, tmp_path):
    first = sweep_file(stage="fine-tuned")
    first.write_text(first.read_text().replace("seeds = 2", "seeds = 1"))
    arguments = {"data": (f"pictures={pictures}",), "only": ("plain",), "workers": 1}
    sweep(first, out=tmp_path / "first", **arguments)
    (record,) = (tmp_path / "first" / "weights").rglob("run.json")
    then = sweep_file(rates=(1e-9,))  # so they stay as they start
    text = then.read_text().replace('weights = "none"', f'weights = "{record.parent}"')
    then.write_text(text)
    sweep(then, out=tmp_path / "then", **arguments)
    one, other = (row["val"]["loss"] for row in rows(tmp_path / "then"))
    assert one == pytest.approx(other, abs=1e-5)


def test_a_head_becomes_a_run_with_its_backbone(finished, pictures, tmp_path):
    path, arguments, _ = finished
    file, kept = read_sweep(path), Rows(arguments["out"])
    (group,) = groups(file)
    run = SweepRun(chosen_settings(file, group, kept)["levels"], seed=1)
    stage = FrozenStage({"pictures": pictures}, maps=tmp_path / "maps", workers=1)
    place = stage.whole(run, weights=kept.weights(run), spare=tmp_path / "run")
    whole, test = load_run(place), recorded_data(place).splits["test"]
    answers = predictions(whole.model, test, whole.spec, device=torch.device("cpu"), workers=1)
    assert (answers.ranks == 0).tolist() == kept.right(run).tolist()


def test_weights_can_differ_by_data_set(sweep_file):
    path = sweep_file()
    path.write_text(path.read_text().replace('weights = "none"', 'weights = "runs/{data}"'))
    file = read_sweep(path)
    assert {s.weights for g in groups(file) for s in settings(file, g)["plain"]} == {
        "runs/pictures"
    }


def test_a_row_names_cpu_and_commit_and_older_rows_are_read(finished):
    path, arguments, result = finished
    files = sorted((arguments["out"] / "rows").rglob("*.json"))
    before = {file: file.read_text() for file in files}
    assert all(json.loads(text)["cpu"] and json.loads(text)["commit"] for text in before.values())
    for file, text in before.items():
        older = {k: v for k, v in json.loads(text).items() if k not in ("cpu", "commit")}
        file.write_text(json.dumps(older))
    try:
        table = lines(sweep(path, **arguments, table=True))
        assert table["plain"] == lines(result)["plain"]
    finally:
        for file, text in before.items():
            file.write_text(text)


def test_a_choice_at_the_edge_of_the_grid_is_marked(finished):
    _, arguments, result = finished
    line = lines(result)["plain"]
    assert line["edges"] == ("lr",)
    text = (arguments["out"] / "table.md").read_text()
    assert f"lr {line['chosen']['lr']}*" in text
    assert AT_EDGE in text
    inner = {**line, "edges": ()}
    assert AT_EDGE not in markdown([{**result["tables"][0], "lines": [inner]}])
