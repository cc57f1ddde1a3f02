"""The images whose answer INT8 changes, and what both variants look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.cli import main
from finedge.data import Item
from finedge.runtime.classifier import Classifier
from finedge.runtime.explain.flips import explain_flips, find_flips
from finedge.runtime.explain.views import ExplainOptions
from finedge.synthetic.command import render

BIRDS = Path(__file__).resolve().parents[3] / "examples/birds.finedge"


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    render(folder, train=1, val=1, test=2, size=128)
    return folder


def labelled(folder: Path, bundle: Bundle) -> tuple[Item, ...]:
    labels = bundle.spec.labels
    return tuple(Item(p, labels.index(p.parent.name)) for p in sorted(folder.glob("test/*/*.jpg")))


def test_flips_are_the_images_with_two_answers_and_the_lost_ones_lead(
    birds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load(BIRDS)
    items = labelled(birds, bundle)
    scores = Classifier.scores

    def scores_in_turn(
        classifier: Classifier, batch: NDArray[np.uint8], *, frames: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        """Return the scores; of INT8 those of the class before."""
        own = scores(classifier, batch)
        return np.roll(own, 1, axis=1) if classifier.variant == "int8" else own

    monkeypatch.setattr(Classifier, "scores", scores_in_turn)
    flips = find_flips(bundle, items)
    assert len(flips.items) == flips.n == len(items)
    assert flips.lost > 20 > flips.gained
    assert flips.record()["mcnemar_p"] < 0.001


def test_both_variants_show_the_same_views(birds: Path) -> None:
    bundle = Bundle.load(BIRDS)
    explained = explain_flips(bundle, labelled(birds, bundle), ExplainOptions())
    # Evidence is for the own answer of each variant: an image with one answer can be compared.
    flipped = next(e for e in explained if e.float32.top[0].label == e.int8.top[0].label)
    pairs = list(zip(flipped.float32.panels, flipped.int8.panels, strict=True))
    assert [a.view for a, _ in pairs] == [b.view for _, b in pairs]
    for a, b in pairs:
        largest = abs(a.maps[0].values).max()
        assert abs(a.maps[0].values - b.maps[0].values).max() < largest / 2
    titles = [tile.title.split(":")[0] for tile in flipped.tiles()[1:]]
    assert titles == ["FP32", "INT8"] * len(pairs)


def test_the_command_counts_and_draws_them(
    birds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "flips"
    words = ["--flips", "--data", str(birds), "--out", str(out), "--max-flips", "1"]
    assert main(["explain", str(BIRDS), *words]) == 0
    result = json.loads(capsys.readouterr().out)
    record = json.loads((out / "explain.json").read_text())
    assert result["n"] == record["n"] == 24
    assert len(result["images"]) == len(record["images"]) == min(1, result["flips"])
    assert (out / "index.html").is_file()


@pytest.mark.parametrize(
    ("words", "text"),
    [(["photo.jpg", "--flips"], "--flips with photo.jpg"), (["--flips", "--max-flips", "0"], "0")],
)
def test_flips_with_wrong_arguments_are_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert main(["explain", str(BIRDS), *words, "--out", str(tmp_path / "out")]) == 2
    assert text in capsys.readouterr().err
