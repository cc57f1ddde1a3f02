"""A small bundle after a search."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from finedge.bundle import Bundle
from finedge.calib.search import outcome, search
from finedge.calib.search.search import restore_costs
from finedge.calib.search.timing import frame_times
from finedge.cli import main
from tests.calib.conftest import write_bundle

IMAGES = "16"


@dataclass(frozen=True)
class Searched:
    """A bundle's folder, and the budget in points that its search was given."""

    path: Path
    budget: float


def calibrate(path: Path, data: Path, *options: str) -> int:
    """Run `finedge calibrate` on few images; return its exit code."""
    return main(["calibrate", str(path), "--data", str(data), "--images", IMAGES, *options])


@pytest.fixture(scope="session")
def short_timing() -> Iterator[None]:
    """Times the most sensitive layer only, for a few rounds.

    The others then follow by KL, so that no time of this machine decides what is tried.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "restore_costs", partial(restore_costs, units=1))
        for module in (outcome, search):
            patch.setattr(module, "frame_times", partial(frame_times, rounds=3))
        yield


@pytest.fixture(scope="session")
def searched(tiny, picture_folder, tmp_path_factory, short_timing) -> Searched:
    """Its budget lies between what all layers in INT8 lose and the least that any point loses.

    A picture more or less on another CPU moves both.
    """
    path = tmp_path_factory.mktemp("searched") / "tiny.finedge"
    write_bundle(tiny, path)
    assert calibrate(path, picture_folder, "--max-drop", "100") == 0
    points = Bundle.load(path).provenance["calibrate"]["search"]["points"]
    whole = next(p["drop_limit"] for p in points if not p["in_float"])
    least = min(p["drop_limit"] for p in points)
    assert least < whole
    budget = round(50 * (least + whole), 2)
    assert calibrate(path, picture_folder, "--max-drop", str(budget)) == 0
    return Searched(path, budget)


@pytest.fixture
def render_text():
    def render(renderable) -> str:
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(renderable)
        return console.export_text()

    return render
