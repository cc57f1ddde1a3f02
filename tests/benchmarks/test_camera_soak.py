"""The checks of the soak of cameras: each of them can fail."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="the extra [events] is not installed")

from benchmarks.soak.camera_run import age_percentiles
from benchmarks.soak.cameras import deliveries, verdict
from benchmarks.soak.clips import FPS

AWAY = range(10, 20)
AGES = {"p50": 10.0, "p95": 50.0, "p99": 100.0}
KEYS = Counter({("a", "started"): 1, ("a", "ended"): 1})


def minute(number: int, **changes: Any) -> dict[str, Any]:
    camera = {"captured": 60 * FPS, "answered": 60 * FPS - 5}
    values = {
        "minute": number,
        "seconds": 60.0,
        "away": number in AWAY,
        "rss_mib": 300.0 + (number % 3) * 0.5,
        "threads": 16,
        "files": 20,
        "cameras": [camera, camera],
        "age_ms_at_most": AGES,
        "queues": {"mqtt": {"most_waiting": 0}},
    }
    return values | changes


def checks(
    changed: dict[int, dict[str, Any]] | None = None, arrived: Counter[Any] = KEYS
) -> dict[str, bool | None]:
    minutes = [minute(number, **(changed or {}).get(number, {})) for number in range(30)]
    delivered = deliveries(KEYS, {"mqtt": arrived}, dropped={"mqtt": 0})
    return verdict(minutes, away=AWAY, ages=AGES, delivered=delivered, exit_code=130)


def test_a_run_without_fault_passes() -> None:
    assert set(checks().values()) == {True}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("no_growth", {n: {"rss_mib": 300.0 + n} for n in range(20, 30)}),
        ("no_growth", {29: {"threads": 17}}),
        ("no_growth", {28: {"files": 25}}),
        ("age_p95_of_each_minute", {7: {"age_ms_at_most": AGES | {"p95": 500.0}}}),
        ("age_p95_of_each_minute", {7: {"age_ms_at_most": AGES | {"p95": None}}}),
        ("never_waits", {12: {"cameras": [{"captured": 800, "answered": 800}]}}),
        ("never_waits", {n: {"cameras": [{"captured": 900, "answered": 700}]} for n in AWAY}),
    ],
)
def test_each_fault_fails_its_check_alone(name: str, changed: dict[int, dict[str, Any]]) -> None:
    failed = [check for check, passed in checks(changed).items() if passed is not True]
    assert failed == [name]


def test_a_lost_or_doubled_event_is_found() -> None:
    assert checks(arrived=Counter({("a", "started"): 1}))["nothing_lost"] is False
    assert checks(arrived=KEYS + KEYS)["nothing_doubled"] is False
    dropped = deliveries(KEYS, {"mqtt": Counter()}, dropped={"mqtt": 2})["mqtt"]
    assert dropped["missing"] == dropped["dropped_by_queue"] == 2


def test_an_age_is_the_edge_of_its_bucket_and_above_the_last_one_unknown() -> None:
    before = {10.0: 100, 200.0: 100, float("inf"): 100}
    after = {10.0: 190, 200.0: 198, float("inf"): 200}
    assert age_percentiles(before, after) == {"p50": 10.0, "p95": 200.0, "p99": None}
