"""A small bundle with one poisoned layer, and the same after a search."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.cpu.poison import Injection, places, poisoned
from finedge.bundle import GOLDEN, Bundle
from finedge.calib.search import outcome, search
from finedge.calib.search.search import restore_costs
from finedge.calib.search.timing import frame_times
from finedge.cli import main
from finedge.golden import pack, synthetic_frame
from finedge.preprocess import preprocess
from finedge.spec import Spec
from tests.calib.conftest import LABELS, SPEC, logits

IMAGES = "16"


@dataclass(frozen=True)
class Poisoned:
    """A bundle's folder, and the layer that INT8 ruins."""

    path: Path
    layer: str


@pytest.fixture(scope="session")
def poisoned_bundle(tiny, tmp_path_factory) -> Poisoned:
    layer, before = places(tiny.model, "weight")[0]
    model = poisoned(tiny.model, Injection("weight", layer, before, 1), table=tiny.table)
    pixels = preprocess(synthetic_frame(), SPEC.preprocess)
    golden = {
        "frame": synthetic_frame(),
        "input": pixels,
        "model.fp32.onnx/logits": logits(model, pixels[None]),
    }
    # Class folders are read in the order of their names.
    spec = Spec("tiny", "tiny", tuple(sorted(LABELS)), SPEC.preprocess, SPEC.input)
    files = {"model.fp32.onnx": model.SerializeToString(), GOLDEN: pack(golden)}
    path = tmp_path_factory.mktemp("poisoned") / "tiny.finedge"
    Bundle.create(path, spec, files=files, provenance={"export": {"opset": 20}})
    return Poisoned(path, layer)


@pytest.fixture(scope="session")
def short_timing() -> Iterator[None]:
    """Times few layers, each for a few rounds: a third of a search is timing otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "restore_costs", partial(restore_costs, units=3))
        for module in (outcome, search):
            patch.setattr(module, "frame_times", partial(frame_times, rounds=3))
        yield


@pytest.fixture(scope="session")
def searched(poisoned_bundle, picture_folder, tmp_path_factory, short_timing) -> Poisoned:
    folder = tmp_path_factory.mktemp("searched")
    path = shutil.copytree(poisoned_bundle.path, folder / "tiny.finedge")
    words = ["calibrate", str(path), "--data", str(picture_folder), "--images", IMAGES]
    assert main([*words, "--max-drop", "7"]) == 0
    return Poisoned(path, poisoned_bundle.layer)


@pytest.fixture
def render_text():
    def render(renderable) -> str:
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(renderable)
        return console.export_text()

    return render
