"""The conditions of a benchmark row: on made trees of boards, with real queries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finedge.bundle import Bundle
from finedge.runtime.benchmark.frames import rendered_frames
from finedge.runtime.benchmark.lane import BenchmarkLane
from finedge.runtime.benchmark.measure import Measured
from finedge.runtime.benchmark.modes import Mode
from finedge.runtime.benchmark.options import Claims
from finedge.runtime.benchmark.results import rows
from finedge.runtime.benchmark.run import ENERGY_COUNTER, interleave
from finedge.runtime.benchmark.schedule import schedule
from finedge.runtime.classifier import Classifier
from finedge.runtime.telemetry import Reader
from finedge.runtime.telemetry.nvml import GpuReading
from tests.jetson.boards.trees import alerts, currents, make, write

PLAN = schedule("60ms")


def measure(
    bundle: Bundle, root: Path, *, do: Callable[[], object] | None = None, card: Any = None
) -> dict[str, Any]:
    """Return the row of one short run on a board; `do` happens at the first recorded query."""
    waiting = [do] if do else []

    class Watched(BenchmarkLane):
        def query(self, *, record: bool) -> float:
            if record and waiting:
                waiting.pop()()
            return super().query(record=record)

    with Classifier.open(bundle, variant="fp32", threads=1) as classifier:
        lane = Watched("tiny", classifier, Mode("single-stream", 1), rendered_frames(3))
        interleave([lane], PLAN, reader=Reader(root, nvml=card))
        (row,) = rows(Measured({"tiny": bundle}, [lane], {}), Claims())
    return row.to_json()


def test_a_jetsons_row_has_its_mode_its_clocks_and_its_energy(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    row = measure(tiny_bundle, make(tmp_path, "orin-nano"))
    assert row["power_mode"] == "25W"
    assert row["clocks"]["locked"] is False
    assert row["power"] == {
        "mean_w": pytest.approx(9.2503),
        "sensor": "VDD_IN",
        "readings": PLAN.blocks,
    }
    assert row["energy_mj"] == pytest.approx(1e3 * 9.2503 / row["images_per_second"], rel=1e-3)
    assert (row["throttled"], row["valid"]) == (False, True)
    assert "gpu_drop" not in row["clocks"]  # this row ran on the CPU


def test_a_machine_that_tells_nothing_is_unknown_and_not_invalid(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    row = measure(tiny_bundle, tmp_path)
    assert (row["power_mode"], row["clocks"]["locked"], row["throttled"], row["energy_mj"]) == (
        "unknown",
        "unknown",
        "unknown",
        None,
    )
    assert row["power"] == {"mean_w": None, "sensor": None, "readings": 0}
    assert row["valid"]


def test_a_board_slowed_by_heat_while_measuring_makes_the_row_invalid(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    make(tmp_path, "agx-orin")
    row = measure(
        tiny_bundle, tmp_path, do=lambda: write(tmp_path, alerts(("cpu", "gpu"), active=("gpu",)))
    )
    assert row["throttled"] is True
    assert not row["valid"]
    assert any("gpu-throttle-alert" in reason for reason in row["invalid_reasons"])


def test_a_weak_supply_counts_only_while_measuring(tiny_bundle: Bundle, tmp_path: Path) -> None:
    make(tmp_path, "thor")
    assert measure(tiny_bundle, tmp_path)["valid"]  # it booted with one event
    row = measure(tiny_bundle, tmp_path, do=lambda: write(tmp_path, currents(oc1=3, oc3=1)))
    assert any("oc1 (under-voltage)" in reason for reason in row["invalid_reasons"])


def test_a_rail_that_fails_in_between_leaves_no_mean(tiny_bundle: Bundle, tmp_path: Path) -> None:
    make(tmp_path, "orin-nano")
    row = measure(
        tiny_bundle, tmp_path, do=(tmp_path / "sys/class/hwmon/hwmon1/curr1_input").unlink
    )
    assert row["power"]["mean_w"] is None
    assert row["energy_mj"] is None


class Card:
    """A GPU that uses 100 W by its energy counter and reports 300 W for the last second."""

    def __init__(self, *, counts: bool = True) -> None:
        self.joules, self.counts = 1000.0, counts

    def read(self) -> GpuReading:
        return GpuReading(power_w=300.0, reasons=())

    def energy_j(self) -> float | None:
        self.joules += 100 * PLAN.block_s  # between two questions
        return self.joules if self.counts else None


def test_a_desktops_energy_is_counted(tiny_bundle: Bundle, tmp_path: Path) -> None:
    row = measure(tiny_bundle, make(tmp_path, "desktop"), card=Card())
    assert row["power"]["sensor"] == ENERGY_COUNTER
    assert 0 < row["power"]["mean_w"] <= 100  # a block lasts no less than planned
    assert row["energy_mj"] == pytest.approx(
        1e3 * row["power"]["mean_w"] / row["images_per_second"], rel=1e-3
    )


def test_the_power_of_the_last_second_is_not_that_of_a_block(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    row = measure(tiny_bundle, make(tmp_path, "desktop"), card=Card(counts=False))
    assert (row["power"]["sensor"], row["energy_mj"]) == (None, None)
