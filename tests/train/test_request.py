"""The typed request of a training: what is recorded of it, and what --resume refuses."""

from pathlib import Path

import pytest

from finedge.errors import UsageError
from finedge.train.request import (
    MachineOptions,
    ModelOptions,
    RecipeOptions,
    RunOptions,
    TrainingRequest,
)

RUN = RunOptions(Path("runs/birds"), Path("my birds"))


def test_the_recorded_command_has_what_was_given_in_one_order():
    request = TrainingRequest(
        RUN,
        ModelOptions("cnl", weights="none"),
        RecipeOptions(seed=0, ema=0.0, compile=True, option=("dropout=0.1", "joint=true")),
        MachineOptions(workers=2, device="cpu", profile=True),
    )
    assert request.command() == (
        "finedge train --out runs/birds --data 'my birds' --model cnl --weights none --seed 0 "
        "--ema 0.0 --compile --option dropout=0.1 --option joint=true"
    )


def test_a_resumed_command_ends_with_resume():
    request = TrainingRequest(RunOptions(Path("run"), resume=True), recipe=RecipeOptions(epochs=3))
    assert request.command() == "finedge train --out run --epochs 3 --resume"


@pytest.mark.parametrize(
    "recipe", [RecipeOptions(size=64), RecipeOptions(option=("a=1",)), RecipeOptions(freeze=0)]
)
def test_resume_refuses_what_makes_the_run(recipe):
    with pytest.raises(UsageError, match="cannot change with --resume"):
        TrainingRequest(RUN, recipe=recipe).require_resumable(distilled=False)


def test_a_teacher_may_move_only_where_there_is_one():
    request = TrainingRequest(RUN, recipe=RecipeOptions(teacher=Path("teacher")))
    request.require_resumable(distilled=True)
    with pytest.raises(UsageError, match="--teacher"):
        request.require_resumable(distilled=False)


@pytest.mark.parametrize("workers", [0, 1025])
def test_the_number_of_threads_has_limits(workers):
    with pytest.raises(UsageError, match="--workers"):
        MachineOptions(workers=workers)


@pytest.mark.parametrize("word", ["momentum=0.5", "seed=3"])
def test_resume_refuses_a_set_key_that_makes_the_run(word):
    request = TrainingRequest(RUN, recipe=RecipeOptions(set=("lr=0.1", word)))
    with pytest.raises(UsageError, match=f"--set {word.split('=')[0]} cannot change"):
        request.require_resumable(distilled=False)


def test_resume_takes_a_set_key_as_it_takes_its_option():
    words = ("lr=0.1", "epochs=9")
    TrainingRequest(RUN, recipe=RecipeOptions(set=words)).require_resumable(distilled=False)
