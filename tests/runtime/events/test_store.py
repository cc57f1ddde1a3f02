from __future__ import annotations

import contextlib
import csv
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from finedge.errors import DataError, SystemProblem, UsageError
from finedge.runtime.events.command import events
from finedge.runtime.events.event import Name
from finedge.runtime.events.listing import Filter, Listing
from finedge.runtime.events.outbox import Undelivered
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.events.sinks import open_event_sinks
from finedge.runtime.events.store import DAY_S, Retention, Store
from tests.runtime.events.make import CONTEXT, NOON, make_event, make_notice

WRITER = """
import itertools, sys
from pathlib import Path
from finedge.runtime.events.store import Store
from tests.runtime.events.make import make_notice
store = Store(Path(sys.argv[1]))
for number in itertools.count(int(sys.argv[2])):
    store.put(make_notice(number))
    store.put(make_notice(number, "ended"))
    store.put(make_notice(number + 10**6))
    print(number, flush=True)
"""
KILLS = 2


def states(path: Path) -> dict[str, str]:
    with Listing.opened(path) as listing:
        return {r["id"]: r["state"] for r in listing.events(Filter(limit=10**6))}


def put_many(store: Store, numbers: Iterable[int]) -> None:
    for number in numbers:
        store.put(make_notice(number, "ended"))


def test_a_visit_is_one_row_with_its_last_crop(tmp_path: Path) -> None:
    path = tmp_path / "new" / "events.db"
    last = make_event(7, "ended", crop=make_event(8).crop)
    with open_event_sinks(EventOutputs(store=path), CONTEXT) as sinks:
        sinks.write(make_event(7))
        sinks.write(last)
    assert sinks.counts["store"].delivered == 2
    (record,) = events(path)["events"]
    assert record == {**last.record(), "state": "ended"}
    with Listing.opened(path) as listing:
        assert listing.crop("visit-7") == make_notice(8).jpeg
        assert listing.crop("visit-8") is None


def test_a_killed_writer_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path, number = tmp_path / "events.db", 0
    for _ in range(KILLS):
        words = [sys.executable, "-c", WRITER, str(path), str(number)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(20):
                number = int(writer.stdout.readline()) + 1
            writer.send_signal(signal.SIGKILL)
            number = max([number, *(int(line) + 1 for line in writer.stdout)])
        store = Store(path)
        assert store.interrupted >= 1  # the visits that the writer left open
        store.close()
        found = states(path)
        assert {f"visit-{i}" for i in range(number)} <= found.keys()
        assert {found[f"visit-{i}"] for i in range(number)} == {"ended"}
        assert "open" not in found.values()
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    file.close()


def test_an_open_visit_ends_at_its_last_known_time(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = Store(path)
    store.put(make_notice(1))
    store.close()
    assert states(path) == {"visit-1": "open"}
    Store(path).close()
    (record,) = events(path)["events"]
    assert (record["state"], record["ended_at"]) == (
        "interrupted",
        make_event(1).record()["ended_at"],
    )


def test_the_oldest_are_removed_by_age_and_by_size(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = Store(path, Retention(days=2))
    for days in range(5):
        at = time.time() - days * DAY_S - 60
        store.put(make_notice(days, "ended", started_at=at, ended_at=at))
    store.put(make_notice(9, started_at=NOON, ended_at=NOON - 99 * DAY_S))  # still there
    assert store.remove_old() == 3
    assert states(path).keys() == {"visit-0", "visit-1", "visit-9"}
    store.retention = Retention(mib=0.1)
    put_many(store, range(100, 200))
    before = path.stat().st_size + path.with_name("events.db-wal").stat().st_size
    assert store.remove_old() > 0
    store.close()
    assert path.stat().st_size < min(before, 0.2 * 2**20)
    assert "visit-199" in states(path)
    assert "visit-100" not in states(path)
    with sqlite3.connect(path) as file:  # no crop without its event
        counts = [file.execute(f"SELECT count(*) FROM {t}").fetchone() for t in ("events", "crops")]
    file.close()
    assert counts[0] == counts[1]


def test_a_clock_that_jumps_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "events.db", Retention(days=2))
    store.put(make_notice(1, "ended", ended_at=time.time()))
    monkeypatch.setattr(time, "time", lambda: NOON + 10**9)
    assert store.remove_old() == 0
    store.close()


def test_a_full_disk_refuses_an_event_that_can_be_written_later(tmp_path: Path) -> None:
    """SQLite's own limit of pages gives the error of a full disk."""
    store = Store(tmp_path / "events.db")
    store.put(make_notice(0, "ended"))
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Undelivered, match="full") as error:
        put_many(store, range(1, 100))
    number = len(states(tmp_path / "events.db"))  # the first that was refused
    assert error.value.again
    assert error.value.exit_code == SystemProblem.exit_code
    store._connection.execute("PRAGMA max_page_count = 1000000")
    store.put(make_notice(number, "ended"))
    store.close()
    assert states(tmp_path / "events.db").keys() == {f"visit-{i}" for i in range(number + 1)}


def test_a_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = Store(path)
    store.put(make_notice(1, "ended"))
    path.unlink()
    store.put(make_notice(2, "ended"))
    store.close()
    assert states(path) == {"visit-2": "ended"}


def test_events_wait_while_another_file_is_in_the_place_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = Store(path)
    store.put(make_notice(1, "ended"))
    path.unlink()
    path.write_text("shopping list\n" * 100)
    for _ in range(2):
        with pytest.raises(Undelivered, match="not a database") as error:
            store.put(make_notice(2, "ended"))
        assert error.value.again
    path.unlink()
    store.put(make_notice(2, "ended"))
    path.rename(tmp_path / "old.db")
    other = Store(path)
    with pytest.raises(Undelivered, match="another run"):
        store.put(make_notice(3, "ended"))
    other.close()
    store.put(make_notice(3, "ended"))
    store.close()
    assert states(path) == {"visit-3": "ended"}


def test_a_store_that_another_program_locks_takes_the_event_later(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = Store(path)
    store._connection.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Undelivered, match="locked") as error:
        store.put(make_notice(1, "ended"))
    assert (error.value.again, error.value.fix) == (True, "end it; what waits is written then")
    other.close()
    store.put(make_notice(1, "ended"))
    store.close()
    assert states(path) == {"visit-1": "ended"}


def test_a_store_on_a_disk_that_can_only_be_read_is_listed(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        store = Store(tmp_path / "events.db")
        store.put(make_notice(1, "ended"))
        store.close()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        assert states(tmp_path / "events.db") == {"visit-1": "ended"}
        with pytest.raises(SystemProblem, match="Read-only"):
            Store(tmp_path / "events.db")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_other_files_are_refused_and_not_changed(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("shopping list\n" * 100)
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE mine (a)")
    file.close()
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(DataError):
            Store(path)
        with pytest.raises(DataError):
            events(path)
        assert path.read_bytes() == before
    with pytest.raises(DataError):
        events(tmp_path / "missing.db")


@pytest.mark.parametrize("version", [99, 0, -1])
def test_a_store_of_another_version_is_refused(version: int, tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    Store(path).close()
    with sqlite3.connect(path) as file:
        file.execute(f"PRAGMA user_version = {version}")
    file.close()
    for read in (Store, events):
        with pytest.raises(DataError, match=f"version {version}"):
            read(path)


def test_a_store_with_other_columns_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    Store(path).close()
    with sqlite3.connect(path) as file:
        file.execute("ALTER TABLE events DROP COLUMN p")
    file.close()
    with pytest.raises(SystemProblem, match="columns"):
        Store(path)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = Store(path)
    with pytest.raises(SystemProblem, match="another run"):
        Store(path)
    store.close()
    Store(path).close()


@pytest.mark.parametrize(
    ("choice", "numbers"),
    [
        (Filter(), [5, 4, 3, 2, 1, 0]),
        (Filter(limit=2), [5, 4]),
        (Filter(label="unknown"), [3]),
        (Filter(source="1"), [5]),
        (Filter(since="2026-05-28T20:26:42Z", until="2026-05-28T20:26:44+00:00"), [3, 2]),
    ],
)
def test_events_are_filtered(tmp_path: Path, choice: Filter, numbers: list[int]) -> None:
    path = tmp_path / "events.db"
    store = Store(path)
    for number in range(6):
        changes: dict[str, object] = {3: {"answer": None}, 5: {"source": "cam1"}}.get(number, {})
        store.put(make_notice(number, "ended", **changes))
    store.close()
    result = events(path, choice=choice)
    assert [r["track"] for r in result["events"]] == numbers
    assert result["matched"] == (6 if choice.limit < 6 else len(numbers))
    counts = events(path, choice=choice, counts=True)["counts"]
    assert sum(count["visits"] for count in counts) == result["matched"]


def test_csv_and_crops_are_exported(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = Store(path)
    store.put(make_notice(1, "ended", source="=1+1"))
    store.put(make_notice(0, "ended", source='\uff1d1, "a"\nb'))
    store.close()
    result = events(path, csv=tmp_path / "out.csv", crops=tmp_path / "crops")
    with (tmp_path / "out.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head[:3] == ["id", "state", "source"]
    assert [row[:3] for row in rows] == [
        ["visit-1", "ended", "'=1+1"],
        ["visit-0", "ended", '\'\uff1d1, "a"\n  b'],
    ]
    assert result["crops"]["n"] == 2
    _, crop = sorted((tmp_path / "crops").glob("red/*.jpg"))
    assert crop.read_bytes() == make_notice(1).jpeg
    with pytest.raises(UsageError):
        events(path, counts=True, csv=tmp_path / "out.csv")
    with pytest.raises(UsageError, match="--since"):
        Filter(since="yesterday")
    with pytest.raises(UsageError, match="--limit"):
        Filter(limit=10**30)


FORGED: list[dict[str, object]] = [
    {"started_at": "../../../evil"},
    {"started_at": 5},
    {"answer": "red"},
    {"answer": {"label": "red"}},
    {"seconds": "long"},
    {"label": ["red"]},
    {"track": "\x1b[31m"},
    {"clip": 1},
]


@pytest.mark.parametrize("change", FORGED, ids=str)
def test_a_forged_event_is_refused_and_writes_nothing(
    change: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "store" / "events.db"
    store = Store(path)
    store.put(make_notice(1, "ended"))
    record = json.dumps(make_event(1, "ended").record() | change)
    store._connection.execute("UPDATE events SET record = ?", (record,))
    store._connection.commit()
    store.close()
    with pytest.raises(DataError, match="is damaged"):
        events(path, crops=tmp_path / "a" / "b" / "crops")
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_names_of_crops_stay_in_their_folder(tmp_path: Path) -> None:
    path = tmp_path / "store" / "events.db"
    store = Store(path)
    store.put(make_notice(1, "ended", id="../../evil", answer=Name("../up", 0.9, 0)))
    store.close()
    assert events(path, crops=tmp_path / "crops")["crops"]["n"] == 1
    assert len(list((tmp_path / "crops").glob("*/*.jpg"))) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["crops", "store"]


def test_no_damaged_store_raises_an_untyped_error(tmp_path: Path) -> None:
    path, damaged = tmp_path / "events.db", tmp_path / "damaged.db"
    store = Store(path)
    put_many(store, range(3))
    store.close()
    whole, generator = path.read_bytes(), random.Random(0)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 40)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        damaged.write_bytes(data[: generator.choice([len(data), generator.randrange(len(data))])])
        for counts in (False, True):
            with contextlib.suppress(DataError):
                events(damaged, counts=counts, crops=None if counts else tmp_path / "crops")


def test_a_store_is_read_while_it_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "events.db")
    store.put(make_notice(1))
    assert json.dumps(events(tmp_path / "events.db"))
    store.put(make_notice(1, "ended"))
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["events.db"]
