"""A broker is killed again and again while events are published: is one lost or doubled?

    python -m benchmarks.soak.broker [--kills 50] [--rate 50] [--seed 0] [--qos 1]

It needs mosquitto, which keeps its sessions on disk, and paho-mqtt. It prints one JSON object;
exit code 1 if an event is lost. kill -9 comes at a random moment while `rate` events a second are
published. The next kill waits until the publisher and the subscriber are connected again: a
subscriber that is away while a broker dies loses what the broker had not saved, and that says
nothing of the publisher.

    lost         events that the publisher counts as delivered and the subscriber never got
    doubled      events that came twice because the publisher sent them again
    redelivered  events that the broker itself sent twice, marked as duplicates
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from finedge.runtime.events import mqtt
from finedge.runtime.events.mqtt import Mqtt
from finedge.runtime.events.mqtt_address import Broker
from finedge.runtime.events.outbox import SIZE
from finedge.runtime.telemetry.environment import environment
from tests.runtime.events.broker import Mosquitto, Subscriber, running
from tests.runtime.events.make import CONTEXT, make_notice, wait_until


def soak(kills: int, *, rate: float, seed: int, qos: int, folder: Path) -> dict[str, object]:
    """Kill a broker `kills` times; return what was counted."""
    with running(folder) as broker:
        return watched(broker, kills, rate=rate, seed=seed, qos=qos)


def watched(
    broker: Mosquitto, kills: int, *, rate: float, seed: int, qos: int
) -> dict[str, object]:
    """Publish, kill and start a broker that runs, and count."""
    generator = random.Random(seed)
    subscriber = Subscriber(broker.port, pattern="soak/events", qos=qos)
    wait_until(lambda: subscriber.connected)
    sink = Mqtt(Broker("127.0.0.1", broker.port, "soak"), CONTEXT)
    wait_until(lambda: sink.connections)
    ended = threading.Event()
    sent = [0]
    publisher = threading.Thread(target=publish, args=(sink, rate, ended, sent))
    publisher.start()
    longest = 0
    for _ in range(kills):
        time.sleep(generator.uniform(0.05, 1.0))
        before = sink.connections
        broker.stop(kill=True)
        time.sleep(generator.uniform(0.0, 0.5))
        broker.start()
        wait_until(lambda: subscriber.connected and sink.connections > before, seconds=120)  # noqa: B023
        longest = max(longest, sink.counts.waiting)
    ended.set()
    publisher.join()
    wait_until(lambda: not sink.counts.waiting, seconds=300)
    sink.close()
    time.sleep(2.0)  # for what is on its way to the subscriber
    subscriber.close()
    arrived, counts = Counter(ids(subscriber)), sink.counts
    return {
        "kills": kills,
        "rate": rate,
        "seed": seed,
        "sent": sent[0],
        "delivered": counts.delivered,
        "dropped_by_queue": counts.lost,
        "queue_size": SIZE,
        "longest_queue": longest,
        "arrived": len(arrived),
        "lost": counts.delivered - len(arrived),
        "doubled": sum(count - 1 for count in arrived.values()),
        "redelivered": subscriber.redelivered,
        "in_order": ids(subscriber) == sorted(ids(subscriber)),
        "connections": sink.connections,
    }


def publish(sink: Mqtt, rate: float, ended: threading.Event, sent: list[int]) -> None:
    """Publish events until the end, and count them."""
    while not ended.wait(1 / rate):
        sink.write(make_notice(sent[0]))
        sent[0] += 1


def ids(subscriber: Subscriber) -> list[int]:
    """Return the numbers of the events in the order in which they came."""
    return [json.loads(payload)["track"] for _, payload in subscriber.messages]


def commit() -> str:
    """Return the commit that is measured."""
    words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Run the soak and print its row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--qos", type=int, default=mqtt.QOS, help="2 shows what it would give")
    options = parser.parse_args()
    mqtt.QOS = options.qos
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        row = soak(
            options.kills,
            rate=options.rate,
            seed=options.seed,
            qos=options.qos,
            folder=Path(folder),
        )
    row |= {"seconds": round(time.monotonic() - began, 1), "python": platform.python_version()}
    row |= {"qos": options.qos, "commit": commit()}
    row["cpu"] = environment()["cpu"]
    print(json.dumps(row))
    return 1 if row["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
