"""Cameras that find and follow for an hour, while the broker and the webhook go away and return.

    python -m benchmarks.soak.cameras --out DIR [--minutes 60] [--away 20] [--cameras 4]

It runs `finedge classify --find motion --events` on RTSP cameras of 1280 x 720 at 15 frames/s, with
--store, --mqtt (a real mosquitto), --webhook and --metrics. A camera shows a minute of birds and a
still minute in turn. In the middle of the run, for `--away` minutes, broker and webhook are down.
It needs the Debian packages of tests/apt.txt, and `pip install 'finedge[events]'`.

Every minute is a line in DIR/minutes.jsonl, written at once: a soak that is killed leaves them. A
new soak adds its own, which `began` tells apart; it never continues an old one, because growth is
that of one process. DIR/summary.json has the machine, the totals and the checks; Ctrl-C and SIGTERM
write it too. Exit code 1 where a check fails. A check is null where the run was too short for it.

Where other work runs, frames wait for a core. Give the soak a scheduling group of its own first:

    setsid -w sh -c 'echo -15 > /proc/self/autogroup; exec python -m benchmarks.soak.cameras ...'

The checks:

    no_growth        memory rises by less than 5 MiB over the minutes before the outage and those
                     after it together; no thread and no file more at the end than before it
    age_p95          of all answers after the first minute, and of each minute: at most 200 ms
    never_waits      in every minute of the outage every camera delivers 98 % of its frames or more,
                     and of these as many are answered as before (within 2 %)
    nothing_lost     an event is in the store, at the broker and at the webhook, unless a full queue
                     dropped it and counted it
    nothing_doubled  and it is there once
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.soak import clips
from benchmarks.soak.camera_run import Cameras, Numbers, Run, age_percentiles, changes
from benchmarks.soak.receivers import Key, Receivers
from benchmarks.soak.watched import MAX_GROWTH_MIB, Sample, autogroup, growth
from finedge.runtime.events.outbox import SIZE
from finedge.runtime.telemetry.environment import environment, load_average
from tests.runtime.events.broker import running

MINUTE_S, LOOK_S = 60.0, 5.0
START_S = 60.0
MAX_AGE_MS = 200.0
MIN_SHARE = 0.98
WARM_UP = 3  # minutes in which caches fill
TOPIC = "finedge/soak"


class Soak:
    """A run that is watched minute by minute.

    Args:
        run: the process.
        receivers: what is taken down.
        out: the file of the minutes.
        away: the minutes of the outage.
    """

    def __init__(self, run: Run, receivers: Receivers, *, out: Path, away: range) -> None:
        self.run, self.receivers, self._out, self.away = run, receivers, out, away
        self.began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.minutes: list[dict[str, Any]] = []
        self.settled: Numbers | None = None  # the counts after the first minute
        self.last = self._first_numbers()
        self._sample, self._at = run.sample(), time.monotonic()

    def watch(self, minutes: int) -> None:
        """Watch so many minutes, and take the receivers down in those of the outage."""
        for number in range(minutes):
            if number == self.away.start and self.away:
                self.receivers.stop()
            if number == self.away.stop and self.away:
                self.receivers.start()
            row = self._minute(number)
            self.minutes.append(row)
            with self._out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self.settled = self.settled or self.last

    def _first_numbers(self) -> Numbers:
        """Wait until every camera has answered."""
        until = time.monotonic() + START_S
        while time.monotonic() < until and self.run.alive:
            try:
                numbers = self.run.numbers()
                if all(camera["answered"] for camera in numbers.cameras):
                    return numbers
            except OSError:
                pass  # it is loading
            time.sleep(0.5)
        raise SystemExit(f"finedge classify gave no answers: {self.run.log.read_text()[-2000:]}")

    def _minute(self, number: int) -> dict[str, Any]:
        most: Counter[str] = Counter()
        until = self._at + MINUTE_S
        numbers = self.last
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(LOOK_S, left))
            if not self.run.alive:
                raise SystemExit(f"it ended: {self.run.log.read_text()[-2000:]}")
            numbers = self.run.numbers()
            for sink, counts in numbers.queues.items():
                most[sink] = max(most[sink], counts["waiting"])
        sample, now = self.run.sample(), time.monotonic()
        row = {
            "began": self.began,
            "minute": number,
            "away": number in self.away,
            **_use(self._sample, sample, seconds=now - self._at),
            **changes(self.last, numbers),
            "queues": {
                sink: {**counts, "most_waiting": most[sink]}
                for sink, counts in numbers.queues.items()
            },
            "events": self.run.made.total(),
            "arrived": {name: count.total() for name, count in self.receivers.arrived().items()},
            "load_1_minute": load_average()[0],
        }
        self.last, self._sample, self._at = numbers, sample, now
        return row


def _use(before: Sample, after: Sample, *, seconds: float) -> dict[str, Any]:
    """Return memory, threads and files now, and shares of one core since `before`.

    `waited_for_a_core_share` is large where other programs keep the machine busy: frames are then
    old because the process did not run.
    """
    return {
        "seconds": round(seconds, 2),
        "rss_mib": round(after.rss_mib, 2),
        "threads": after.threads,
        "files": after.files,
        "cpu_share_of_one_core": round((after.cpu_s - before.cpu_s) / seconds, 4),
        "waited_for_a_core_share": round((after.delayed_s - before.delayed_s) / seconds, 4),
        "machine_share_of_one_core": round((after.busy_s - before.busy_s) / seconds, 4),
    }


def stored(path: Path) -> tuple[Counter[Key], int]:
    """Return the events in a store, and how many visits are still open in it."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT id, state FROM events").fetchall()
    made: Counter[Key] = Counter((id_, "started") for id_, _ in rows)
    made.update((id_, "ended") for id_, state in rows if state == "ended")
    return made, sum(state == "open" for _, state in rows)


def deliveries(
    made: Counter[Key], arrived: dict[str, Counter[Key]], *, dropped: dict[str, int]
) -> dict[str, dict[str, int]]:
    """Return for each sink what is missing, what the queue dropped, and what came twice."""
    return {
        sink: {
            "made": len(made),
            "arrived": len(keys),
            "missing": len(set(made) - set(keys)),
            "dropped_by_queue": dropped.get(sink, 0),
            "doubled": sum(count - 1 for count in keys.values()),
            "unasked": len(set(keys) - set(made)),
        }
        for sink, keys in arrived.items()
    }


def verdict(
    minutes: Sequence[dict[str, Any]],
    *,
    away: range,
    ages: dict[str, float | None],
    delivered: dict[str, dict[str, int]],
    exit_code: int,
) -> dict[str, bool | None]:
    """Return which checks hold; None where the run was too short to tell."""
    return {
        "ended_in_order": exit_code in (0, 130),
        "no_growth": _no_growth(minutes, away),
        "age_p95": _within(ages["p95"]),
        "age_p95_of_each_minute": all(_within(m["age_ms_at_most"]["p95"]) for m in minutes[1:])
        if minutes[1:]
        else None,
        "never_waits": _never_waits(minutes),
        "nothing_lost": all(
            sink["missing"] <= sink["dropped_by_queue"] for sink in delivered.values()
        ),
        "nothing_doubled": not any(sink["doubled"] for sink in delivered.values()),
    }


def _never_waits(minutes: Sequence[dict[str, Any]]) -> bool | None:
    down = [minute for minute in minutes if minute["away"]]
    if not down or len(down) == len(minutes):
        return None
    captured = [
        camera["captured"] / (clips.FPS * minute["seconds"])
        for minute in down
        for camera in minute["cameras"]
    ]
    usual = _answered([minute for minute in minutes if not minute["away"]])
    return min(captured) >= MIN_SHARE and _answered(down) >= MIN_SHARE * usual


def _answered(minutes: Sequence[dict[str, Any]]) -> float:
    """Return the share of the captured frames that were answered."""
    cameras = [camera for minute in minutes for camera in minute["cameras"]]
    return sum(camera["answered"] for camera in cameras) / sum(c["captured"] for c in cameras)


def _within(age_ms: float | None) -> bool:
    return age_ms is not None and age_ms <= MAX_AGE_MS


def phases(
    minutes: Sequence[dict[str, Any]], away: range
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the warm minutes before the outage, and those after it in which no event waits."""
    before = [m for m in minutes[WARM_UP:] if m["minute"] < away.start]
    after = [
        m
        for m in minutes[WARM_UP:]
        if m["minute"] >= away.stop
        and not any(q["most_waiting"] > 10 for q in m["queues"].values())
    ]
    return before, after


def _no_growth(minutes: Sequence[dict[str, Any]], away: range) -> bool | None:
    before, after = phases(minutes, away)
    rises = [growth([m["rss_mib"] for m in phase]) for phase in (before, after)]
    if None in rises:
        return None
    more = any(
        max(m[k] for m in after[-3:]) > max(m[k] for m in before) for k in ("threads", "files")
    )
    return sum(rise for rise in rises if rise is not None) < MAX_GROWTH_MIB and not more


def summary(soak: Soak, *, exit_code: int, store: Path, complete: bool) -> dict[str, Any]:
    """Return the totals and the checks of a soak that has ended."""
    minutes, settled = soak.minutes, soak.settled or soak.last
    kept, still_open = stored(store)
    dropped = {sink: counts["lost"] for sink, counts in soak.last.queues.items()}
    delivered = deliveries(
        soak.run.made, {"store": kept, **soak.receivers.arrived()}, dropped=dropped
    )
    ages = age_percentiles(settled.ages, soak.last.ages)
    seconds = sum(minute["seconds"] for minute in minutes) or 1.0
    before, after = phases(minutes, soak.away)
    return {
        "began": soak.began,
        "complete": complete,
        "minutes": len(minutes),
        "away_minutes": sum(minute["away"] for minute in minutes),
        "cameras": soak.last.cameras,
        "age_ms_at_most": ages,
        "cpu_share_of_one_core": _mean(minutes, "cpu_share_of_one_core", seconds),
        "waited_for_a_core_share": _mean(minutes, "waited_for_a_core_share", seconds),
        "machine_share_of_one_core": _mean(minutes, "machine_share_of_one_core", seconds),
        "rss_mib": {
            "first": minutes[0]["rss_mib"] if minutes else None,
            "rise_before_the_outage": growth([m["rss_mib"] for m in before]),
            "rise_after_the_outage": growth([m["rss_mib"] for m in after]),
            "most": max((m["rss_mib"] for m in minutes), default=None),
            "last": minutes[-1]["rss_mib"] if minutes else None,
        },
        "events": delivered,
        "visits_open_in_store": still_open,
        "queue_size": SIZE,
        "most_waiting": {
            sink: max(m["queues"][sink]["most_waiting"] for m in minutes)
            for sink in (minutes[0]["queues"] if minutes else ())
        },
        "exit_code": exit_code,
        "checks": verdict(
            minutes, away=soak.away, ages=ages, delivered=delivered, exit_code=exit_code
        ),
    }


def _mean(minutes: Sequence[dict[str, Any]], name: str, seconds: float) -> float:
    return round(sum(m[name] * m["seconds"] for m in minutes) / seconds, 4)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--away", type=int, help="minutes of the outage; default: a third")
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--bundle", type=Path, default=Path("examples/birds.finedge"))
    parser.add_argument("--variant", default="auto")
    parser.add_argument("--clip-s", type=int, default=60, help="seconds of birds, and still ones")
    options = parser.parse_args()
    options.away = options.minutes // 3 if options.away is None else options.away
    if not 0 <= options.away <= options.minutes:
        parser.error("--away is longer than --minutes")
    return options


def main() -> int:
    options = parse()
    machine = environment()  # before our own load
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin = (options.minutes - options.away) // 2
    away, complete = range(begin, begin + options.away), True
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        cameras = Cameras(
            clips.encode(folder, seconds=options.clip_s), options.cameras, fps=clips.FPS
        )
        exits.callback(cameras.close)
        broker = exits.enter_context(running(folder))
        receivers = Receivers(broker, TOPIC)
        exits.callback(receivers.close)
        store, began = folder / "soak.db", time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        words = ["classify", str(options.bundle), *cameras.addresses, "--variant", options.variant]
        words += ["--find", "motion", "--events", "--store", str(store)]
        words += ["--mqtt", f"mqtt://127.0.0.1:{broker.port}/{TOPIC}"]
        words += ["--webhook", f"http://127.0.0.1:{receivers.hook.port}/"]
        run = Run(words, options.out / f"log-{began}.txt", options.cameras)
        exits.callback(run.end)
        soak = Soak(run, receivers, out=options.out / "minutes.jsonl", away=away)
        try:
            soak.watch(options.minutes)
        except KeyboardInterrupt:
            complete = False
        code = run.end()
        time.sleep(2.0)  # for what is on its way to the subscriber
        result = summary(soak, exit_code=code, store=store, complete=complete)
    content = {
        "schema": 1,
        "environment": machine,
        "load_average_at_the_end": load_average(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "autogroup": autogroup(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        **result,
    }
    (options.out / "summary.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content["checks"]))
    return 1 if False in content["checks"].values() else 0


if __name__ == "__main__":
    sys.exit(main())
