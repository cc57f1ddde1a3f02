import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from finedge.cli import main
from finedge.data import open_dataset
from finedge.errors import DataError, UsageError
from finedge.train.evaluate.command import evaluate
from finedge.train.run import load_run, recorded_data

SMALL = (
    "--model plain --backbone mobilenetv2_035 --weights none --size 32 --batch-size 8 --device cpu"
)


@pytest.fixture(scope="module")
def run(train, pictures, tmp_path_factory):
    """A small finished run of CNL with a moving average."""
    out = tmp_path_factory.mktemp("runs") / "birds"
    train(
        out=out,
        data=pictures,
        model="cnl",
        backbone="mobilenetv2_035",
        weights="none",
        size=32,
        batch_size=8,
        epochs=2,
        lr=0.02,
        ema=0.5,
        device="cpu",
    )
    return out


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_run_says_all_that_export_needs(run, pictures):
    loaded = load_run(run)
    assert loaded.spec.labels == ("blue", "green", "red")
    assert (loaded.spec.model, loaded.spec.backbone) == ("cnl", "mobilenetv2_035")
    assert (
        loaded.spec.input.height,
        loaded.spec.preprocess.crop,
        loaded.spec.preprocess.resize,
    ) == (32, 32, 37)
    assert loaded.spec.outputs == loaded.model.outputs
    assert not loaded.model.training
    assert loaded.record["recipe"]["epochs"] == 2
    assert loaded.record["model"]["options"] == loaded.model.options
    assert "--model cnl" in loaded.record["commands"][0]
    assert recorded_data(run).splits == open_dataset(pictures.resolve()).splits


def test_the_reported_accuracy_is_that_of_the_last_epoch(run):
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    measured = evaluate(run, split="val", device="cpu")
    assert last["epoch"] == 2
    assert {k: measured[k] for k in ("top1", "top5", "n", "wilson95")} == last["val"]


def test_evaluate_counts_each_class_and_has_the_test_split_for_default(run):
    measured = evaluate(run, device="cpu")
    assert measured["split"] == "test"
    assert measured["n"] == 12
    assert {label: c["n"] for label, c in measured["classes"].items()} == {
        "blue": 4,
        "green": 4,
        "red": 4,
    }
    assert sum(c["top1"] * c["n"] for c in measured["classes"].values()) == pytest.approx(
        measured["top1"] * 12, abs=1e-4
    )
    assert measured["top5"] == 1.0


def test_evaluate_follows_images_that_moved(run, pictures, tmp_path):
    moved = shutil.copytree(pictures, tmp_path / "moved")
    assert evaluate(run, data=moved, device="cpu") == evaluate(run, device="cpu")


def test_evaluate_takes_other_images_of_the_same_classes_only(run, pictures, tmp_path):
    other = tmp_path / "other"
    for label in ("blue", "green", "red"):
        for split in ("train", "test"):
            (other / split / label).mkdir(parents=True)
            shutil.copy(
                pictures / "test" / label / "00.png", other / split / label / f"new-{split}.png"
            )
    assert evaluate(run, data=other, device="cpu")["n"] == 3
    for split in ("train", "test"):
        (other / split / "red").rename(other / split / "pink")
    with pytest.raises(DataError, match="does not know: pink"):
        evaluate(run, data=other, device="cpu")


def test_the_command_line_sends_a_run_to_pytorch(run, capsys):
    assert main(["evaluate", str(run), "--split", "val", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 18


def test_training_from_the_command_line_prints_one_json_object(pictures, tmp_path, capsys):
    options = f"{SMALL} --epochs 1"
    assert (
        main(["train", "--data", str(pictures), "--out", str(tmp_path / "run"), *options.split()])
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert (result["split"], result["n"], result["epochs"]) == ("val", 18, 1)


def test_the_run_has_a_page_and_a_failed_page_fails_no_training(
    train, settings, tmp_path, monkeypatch
):
    pytest.importorskip("jinja2")
    result = train(out=tmp_path / "run", **settings)
    assert result["page"] == str(tmp_path / "run" / "page.html")
    page = (tmp_path / "run" / "page.html").read_text()
    assert "Learning curves" in page
    assert f"{100 * result['top1']:.1f} % top-1" in page

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("finedge.train.page.write_text", fail)
    assert "page" not in train(out=tmp_path / "second", **settings)


def test_evaluate_writes_the_page_of_a_run(run, tmp_path):
    pytest.importorskip("jinja2")
    result = evaluate(run, page=tmp_path / "page.html", device="cpu")
    assert result["page"] == str(tmp_path / "page.html")
    assert "Learning curves" in (tmp_path / "page.html").read_text()
    wrong = sum(pair["images"] for pair in result["worst_pairs"])
    assert wrong == round((1 - result["top1"]) * result["n"])


def test_a_finished_run_resumes_to_its_result(train, run):
    before = (run / "checkpoint.safetensors").read_bytes()
    assert (
        train(out=run, resume=True, device="cpu")["top1"]
        == evaluate(run, split="val", device="cpu")["top1"]
    )
    assert (run / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize("kind", ["run", "folder", "file"])
def test_an_out_that_exists_is_refused_and_unchanged(train, run, settings, tmp_path, kind):
    out = {"run": run, "folder": tmp_path / "folder", "file": tmp_path / "file"}[kind]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("ten years")
    (tmp_path / "file").write_text("x")
    before = contents(out) if out.is_dir() else out.read_bytes()
    with pytest.raises(UsageError, match=r"holds a run|not a run"):
        train(out=out, **settings)
    assert (contents(out) if out.is_dir() else out.read_bytes()) == before


@pytest.mark.parametrize(
    "changed", [{"seed": 3}, {"model": "plain"}, {"size": 64}, {"recipe": "common"}]
)
def test_what_makes_a_run_cannot_change_when_it_is_resumed(train, run, changed):
    with pytest.raises(UsageError, match=f"--{next(iter(changed))}"):
        train(out=run, resume=True, **changed)


def test_fewer_epochs_than_are_finished_are_refused(train, run):
    before = contents(run)
    with pytest.raises(UsageError, match=r"--epochs 1: .* has \d+ finished"):
        train(out=run, resume=True, epochs=1, device="cpu")
    assert contents(run) == before


def test_a_folder_of_maps_is_for_quick_only(train, settings, tmp_path):
    with pytest.raises(UsageError, match="--maps without --quick"):
        train(out=tmp_path / "run", **settings, maps=tmp_path / "maps")
    assert not (tmp_path / "run").exists()


def test_resuming_nothing_is_refused(train, tmp_path):
    with pytest.raises(DataError, match=r"no run\.json"):
        train(out=tmp_path / "nothing", resume=True)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"model": "plian"}, "'plain'"),
        ({"backbone": "resnet5"}, "'resnet50'"),
        ({"recipe": "comon"}, "'common'"),
        ({"epochs": 0}, "1 to 100000"),
    ],
)
def test_a_wrong_argument_is_reported_with_the_nearest_right_one(
    train, settings, tmp_path, wrong, hint
):
    with pytest.raises(UsageError, match=hint):
        train(out=tmp_path / "run", **{**settings, **wrong})
    assert not (tmp_path / "run").exists()


def test_options_of_the_model_come_on_top_of_the_recipe_and_are_recorded(
    settings, tmp_path, capsys
):
    (tmp_path / "r.toml").write_text('[options]\ndropout = 0.4\nhead_init = "small"\n')
    more = {**settings, "model": "cnl", "epochs": 1, "recipe": tmp_path / "r.toml"}
    words = [
        str(word) for name, value in more.items() for word in (f"--{name.replace('_', '-')}", value)
    ]
    options = ["--option", "dropout=0.1", "--option", "joint=true", "--accumulate", "2"]
    options += ["--set", "rotation=5", "--set", "flip=false"]
    assert main(["train", *words, "--out", str(tmp_path / "run"), *options]) == 0
    loaded = load_run(tmp_path / "run")
    expected = {"dropout": 0.1, "head_init": "small", "joint": True}
    assert loaded.record["recipe"]["options"] == expected
    assert {name: loaded.model.options[name] for name in expected} == expected
    assert loaded.record["recipe"]["accumulate"] == 2
    assert (loaded.record["recipe"]["rotation"], loaded.record["recipe"]["flip"]) == (5.0, False)
    assert "--option dropout=0.1 --option joint=true" in loaded.record["commands"][0]
    assert "--set rotation=5 --set flip=false" in loaded.record["commands"][0]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("dropuot=0.1", "'dropout'"),
        ("dropout", "KEY=VALUE"),
        ("=1", "KEY=VALUE"),
        ("dropout=much", "cannot be built"),
        ("head_init=tiny", "small"),
    ],
)
def test_a_wrong_option_is_reported(train, settings, tmp_path, word, hint):
    with pytest.raises(UsageError, match=hint):
        train(out=tmp_path / "run", **settings, option=(word,))
    assert not (tmp_path / "run").exists()


def test_no_data_is_a_usage_error(train, tmp_path):
    with pytest.raises(UsageError, match="--data"):
        train(out=tmp_path / "run")


@pytest.mark.parametrize("damage", ["{", '{"format": 1}', '{"format": 99}', "[]"])
def test_a_damaged_or_newer_run_is_refused(tmp_path, damage):
    (tmp_path / "run.json").write_text(damage)
    with pytest.raises(DataError, match=r"damaged|lacks|format 99"):
        load_run(tmp_path)


def test_images_that_are_gone_are_reported(run, pictures, tmp_path):
    with pytest.raises(DataError, match="--data DIR"):
        recorded_data(run, root=tmp_path / "gone")


def test_ctrl_c_exits_with_130_and_leaves_a_run(pictures, tmp_path):
    out = tmp_path / "run"
    options = f"{SMALL} --epochs 1000"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "finedge",
            "train",
            "--data",
            pictures,
            "--out",
            out,
            *options.split(),
        ],
        stderr=subprocess.PIPE,
        text=True,
        # A suite in the background of a script ignores the signal, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").is_file() or not (out / "metrics.jsonl").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert load_run(out).spec.model == "plain"
