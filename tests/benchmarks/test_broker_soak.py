"""The soak that kills a broker, in short: its counts are those of the documents."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is missing: pip install finedge[events]")


@pytest.mark.slow
def test_a_broker_that_is_killed_three_times_gets_every_event(tmp_path: Path) -> None:
    from benchmarks.soak.broker import soak

    row = soak(3, rate=20.0, seed=1, qos=1, folder=tmp_path)
    assert (row["lost"], row["dropped_by_queue"]) == (0, 0)
    assert row["sent"] == row["delivered"] == row["arrived"]
    assert row["in_order"]
    assert row["doubled"] <= 3  # at most the event whose answer died with the broker
