import json

import pytest
import torch

from finedge.train.profile import PHASES, StepClock

ROUNDING = 0.01  # milliseconds and shares are rounded to 3 and 4 places


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_phases_add_up_to_the_step(train, tmp_path, settings, accumulate):
    result = train(out=tmp_path / "run", **settings, accumulate=accumulate, profile=True)
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    profile = lines[-1]["profile"]
    assert result["profile"] == profile
    assert profile["steps"] == 4 // accumulate
    assert sum(profile[phase]["ms"] for phase in PHASES) == pytest.approx(
        profile["step_ms"], abs=ROUNDING
    )
    assert sum(profile[phase]["share"] for phase in PHASES) == pytest.approx(1, abs=ROUNDING)
    assert all(profile[phase]["ms"] > 0 for phase in ("forward", "backward", "optimizer"))
    assert profile["steps"] * profile["step_ms"] / 1e3 <= lines[-1]["seconds"] + ROUNDING


def test_without_the_option_nothing_is_timed(train, tmp_path, settings):
    assert "profile" not in train(out=tmp_path / "run", **{**settings, "epochs": 1})
    clock = StepClock(torch.device("cpu"), on=False)
    clock.lap("forward")
    assert clock.report(1) == {}
