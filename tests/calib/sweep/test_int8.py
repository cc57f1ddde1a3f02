"""INT8 of a sweep whose runs are not there: an export copies the shipped bundle."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from finedge.bundle import CPU_FILE, FLOAT_FILE, Bundle
from finedge.calib.sweep import int8
from finedge.calib.sweep.int8 import measure_int8
from finedge.calib.sweep.show import markdown
from finedge.calib.sweep.times import cpu_times
from finedge.errors import DataError
from finedge.runtime.variant.timing import Plan
from finedge.synthetic.command import render
from finedge.train.sweep.file import read_sweep
from finedge.train.sweep.plan import SEED, SweepRun, groups, settings
from finedge.train.sweep.rows import Answers, Origin, Rows, packed
from finedge.train.sweep.table import tables

BIRDS = Path(__file__).resolve().parents[3] / "examples" / "birds.finedge"
ONE_BLOCK = Plan(warm_up=1, queries=1, looks=(1,))
TOML = """
stage = "fine-tuned"
data = ["birds"]
recipes = ["small"]
backbones = ["mobilenetv2_035"]
seeds = 2
compare = ["plain"]
[families.plain]
model = "plain"
[families.levels]
model = "levels"
"""


class Whole:
    """A stage whose weights are runs."""

    def whole(self, run, *, weights, spare):
        return weights


WHOLE = Whole()


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("birds")
    render(folder, train=1, val=1, test=1, size=128)
    return folder


@pytest.fixture
def swept(tmp_path, birds, monkeypatch):
    """A sweep of two families that were trained and tested, and the calls of its export."""
    path = tmp_path / "sweep.toml"
    path.write_text(TOML)
    file, rows = read_sweep(path), Rows(tmp_path / "out")
    (group,) = groups(file)
    runs = {name: SweepRun(one, SEED) for name, (one,) in settings(file, group).items()}
    right = Answers(np.ones(12, np.bool_))
    others = [SweepRun(run.setting, SEED + 1) for run in runs.values()]
    for run in (*runs.values(), *others):
        rows.write(run, {"val": right.to_json(), "loss": 0.0, "parameters": 1})
        rows.write(run, {**right.to_json(), "right": packed(right.right)}, "test")
    rows.write_chosen(group, {name: run.setting.digest for name, run in runs.items()})
    exported = []

    def export(run, *, out, data):
        exported.append((run, data))
        out.symlink_to(BIRDS)

    monkeypatch.setattr(int8, "make_bundle", export)
    monkeypatch.setattr(int8, "cpu_times", partial(cpu_times, plan=ONE_BLOCK))

    def measure(**options):
        origin = Origin("a CPU", "a commit", {"finedge": "1"})
        measure_int8(file, rows, WHOLE, data={"birds": birds}, origin=origin, **options)
        (table,) = tables(file, rows)
        return {line["family"]: line for line in table["lines"]}, markdown([table])

    return SimpleNamespace(measure=measure, rows=rows, runs=runs, exported=exported, birds=birds)


def test_int8_of_what_was_tested_is_measured_once(swept):
    lines, text = swept.measure()
    assert len(swept.exported) == 4
    assert {data for _, data in swept.exported} == {swept.birds}
    for name, run in swept.runs.items():
        row = swept.rows.read(run, "int8")
        assert (row["n"], row["cpu"], row["commit"]) == (12, "a CPU", "a commit")
        assert lines[name]["int8"] == row["top1"]
        assert lines[name]["int8_cpu_ms"] > 0
        assert (lines[name]["int8_tested"], lines[name]["int8_spread"]) == (2, 0.0)
    difference = lines["levels"]["int8_against"]["plain"]
    assert (difference["mean"], difference["seeds"], difference["images"]) == (0.0, 2, 12)
    assert "small, INT8" in text
    assert swept.measure() == (lines, text)
    assert len(swept.exported) == 4


def test_times_are_those_of_all_families(swept):
    swept.measure(only=("plain",))
    lines, _ = swept.measure(only=("levels",))
    assert lines["plain"]["int8_cpu_ms"] > 0
    assert lines["levels"]["int8_cpu_ms"] > 0


def test_a_bundle_without_int8_is_calibrated_and_not_exported_again(swept, monkeypatch):
    run, calibrated = swept.runs["plain"], []
    place = swept.rows.bundle(run)
    whole = Bundle.load(BIRDS)
    Bundle.create(place, whole.spec, files={FLOAT_FILE: whole.file(FLOAT_FILE)}, provenance={})

    def calibrate(bundle, *, data):
        calibrated.append((bundle, data))
        content = whole.file(CPU_FILE).read_bytes()
        Bundle.load(bundle).extend("calibrate", {CPU_FILE: content}, {})

    monkeypatch.setattr(int8, "calibrate_bundle", calibrate)
    lines, _ = swept.measure()
    assert calibrated == [(place, swept.birds)]
    exported = [path for path, _ in swept.exported]
    assert swept.rows.weights(swept.runs["levels"]) in exported
    assert swept.rows.weights(run) not in exported
    assert lines["plain"]["int8"] == lines["levels"]["int8"]


def test_a_failure_is_a_row_that_only_retry_measures_again(swept, monkeypatch):
    export = int8.make_bundle

    def fail(*_, **__):
        raise DataError("no run there")

    monkeypatch.setattr(int8, "make_bundle", fail)
    lines, _ = swept.measure()
    assert swept.rows.read(swept.runs["plain"], "int8")["error"] == "no run there"
    assert lines["plain"]["int8"] is None
    monkeypatch.setattr(int8, "make_bundle", export)
    assert swept.measure()[0]["plain"]["int8"] is None
    assert swept.measure(retry=True)[0]["plain"]["int8"] is not None
