import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from finedge.errors import DataError, UsageError
from finedge.train.distill import Teacher, distilled, open_teacher
from finedge.train.loader import normalise
from finedge.train.run import load_run, read_record
from finedge.train.step import TrainingStep

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(train, pictures, tmp_path_factory):
    """A small finished run."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    train(
        out=out,
        data=pictures,
        model="plain",
        backbone="mobilenetv2_035",
        weights="none",
        size=32,
        batch_size=8,
        epochs=1,
        lr=0.01,
        device="cpu",
    )
    return out


def equal(one, two):
    first, second = (load_file(run / "checkpoint.safetensors") for run in (one, two))
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_the_paper(weight):
    torch.manual_seed(0)
    student, teacher, loss, t = torch.randn(5, 7), torch.randn(5, 7), torch.tensor(2.5), 3.0
    p, q = (torch.softmax(scores / t, dim=1) for scores in (teacher, student))
    expected = (1 - weight) * 2.5 + weight * t**2 * (p * (p.log() - q.log())).sum(dim=1).mean()
    torch.testing.assert_close(
        distilled(loss, student, teacher, weight=weight, temperature=t), expected
    )


def test_log_probabilities_teach_what_their_logits_teach():
    torch.manual_seed(0)
    student, teacher, loss = torch.randn(5, 7), torch.randn(5, 7), torch.tensor(0.0)
    logs = [
        distilled(loss, s, t, weight=1.0, temperature=4.0)
        for s in (student, student.log_softmax(1))
        for t in (teacher, teacher.log_softmax(1))
    ]
    torch.testing.assert_close(logs, [logs[0]] * 4)


def test_the_teacher_sees_frames_as_it_was_trained_to(teacher):
    run = load_run(teacher)
    how = replace(run.spec.preprocess, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    frames = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    scores = Teacher(teacher, "", run.model, replace(run.spec, preprocess=how))(frames)
    torch.testing.assert_close(scores, run.model(normalise(frames, how))["logits"])
    assert not scores.requires_grad


def test_a_student_follows_its_teacher_and_the_run_says_so(train, teacher, settings, tmp_path):
    # Without momentum, or six steps of a network without weights go further than they should.
    calm = "distill_weight = 1.0\nmomentum = 0.0\nnesterov = false\n[options]\ndropout = 0.0\n"
    (tmp_path / "r.toml").write_text(calm)
    result = train(
        out=tmp_path / "run",
        **{**settings, "epochs": 3},
        recipe=str(tmp_path / "r.toml"),
        teacher=teacher,
    )
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert result["loss"] < first["loss"]
    assert read_record(tmp_path / "run")["teacher"].keys() == {"path", "sha256"}


def test_a_teacher_without_weight_changes_nothing(train, teacher, settings, tmp_path):
    (tmp_path / "r.toml").write_text("distill_weight = 0.0\n")
    more = {**settings, "epochs": 1, "recipe": str(tmp_path / "r.toml")}
    train(out=tmp_path / "taught", **more, teacher=teacher)
    train(out=tmp_path / "alone", **more)
    assert equal(tmp_path / "taught", tmp_path / "alone")


def test_a_distilled_run_resumes_with_its_teacher_and_no_other(
    train, teacher, settings, tmp_path, monkeypatch
):
    moving = shutil.copytree(teacher, tmp_path / "teacher")
    train(out=tmp_path / "whole", **settings, teacher=moving)
    taken, real = [], TrainingStep._loss

    def interrupted(self, batch):
        taken.append(batch)
        if len(taken) == 6:
            raise KeyboardInterrupt
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(out=tmp_path / "broken", **settings, teacher=moving)
    moved = moving.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="not a run"):
        train(out=tmp_path / "broken", resume=True, device="cpu")
    train(out=tmp_path / "broken", resume=True, device="cpu", teacher=moved)
    assert equal(tmp_path / "whole", tmp_path / "broken")
    with pytest.raises(DataError, match="not the teacher"):
        train(out=tmp_path / "broken", resume=True, device="cpu", teacher=tmp_path / "whole")
    with pytest.raises(UsageError, match="--teacher cannot change"):
        train(out=moved, resume=True, device="cpu", teacher=moved)


def test_a_teacher_of_other_classes_or_sizes_is_refused(teacher):
    run = load_run(teacher)
    with pytest.raises(UsageError, match="same labels"):
        open_teacher(teacher, replace(run.spec, labels=("blue", "green")), sides=[32], device=CPU)
    with pytest.raises(UsageError, match="of 0 px"):
        open_teacher(teacher, run.spec, sides=[0, 32], device=CPU)


def test_a_damaged_teacher_is_reported(train, teacher, settings, tmp_path):
    broken = shutil.copytree(teacher, tmp_path / "teacher")
    save_file(
        {"model.x": torch.zeros(1)},
        broken / "checkpoint.safetensors",
        {"epoch": "1", "ema_updates": "0"},
    )
    with pytest.raises(DataError, match="does not fit"):
        train(out=tmp_path / "run", **settings, teacher=broken)
