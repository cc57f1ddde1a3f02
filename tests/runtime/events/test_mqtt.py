from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finedge.errors import SystemProblem, UsageError
from finedge.redact import mask_text
from finedge.runtime.events import outbox
from finedge.runtime.events.camera_state import CameraState
from finedge.runtime.events.event import Name
from finedge.runtime.events.home_assistant import discovery
from finedge.runtime.events.mqtt import Mqtt
from finedge.runtime.events.mqtt_address import PASSWORD, Broker
from finedge.runtime.events.notice import Counts
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.events.sinks import open_event_sinks
from tests.runtime.events.broker import Mosquitto, Subscriber, running
from tests.runtime.events.make import CONTEXT, make_event, make_notice, wait_until

pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is missing: pip install finedge[events]")

# Publishes one event, and waits to be killed.
PUBLISHER = """
import sys, time
from tests.runtime.events.test_mqtt import publisher
from tests.runtime.events.make import make_notice, wait_until
sink = publisher(int(sys.argv[1]))
sink.write(make_notice(1))
wait_until(lambda: sink.counts.delivered)
print("published", flush=True)
time.sleep(60)
"""


def publisher(port: int, *, discovery: str = "", size: int = 100) -> Mqtt:
    broker = Broker("127.0.0.1", port, "birds")
    return Mqtt(broker, CONTEXT, discovery_prefix=discovery, size=size)


@contextmanager
def subscribed(broker: Mosquitto, **login: str) -> Iterator[Subscriber]:
    subscriber = Subscriber(broker.port, **login)
    wait_until(lambda: subscriber.connected)
    try:
        yield subscriber
    finally:
        subscriber.close()


def keys(payloads: list[bytes]) -> list[tuple[int, str]]:
    return [(record["track"], record["event"]) for record in map(json.loads, payloads)]


def test_events_and_states_reach_a_broker(tmp_path: Path) -> None:
    with running(tmp_path) as broker, subscribed(broker) as subscriber:
        outputs = EventOutputs(mqtt=f"mqtt://127.0.0.1:{broker.port}/birds/garden")
        with open_event_sinks(outputs, CONTEXT) as sinks:
            sinks.write(make_event(1))
            sinks.write(make_event(2, stream=1))
            wait_until(lambda: len(subscriber.topic("birds/garden/camera1/today")) == 1)
            sinks.write(make_event(1, "ended"))
        wait_until(lambda: b"offline" in subscriber.topic("birds/garden/status"))
        last = dict(subscriber.messages)
    assert sinks.counts["mqtt"] == Counts(3, 0, 0)
    events = subscriber.topic("birds/garden/events")
    assert keys(events) == [(1, "started"), (2, "started"), (1, "ended")]
    assert json.loads(events[2]) == make_event(1, "ended").record()
    assert last["birds/garden/camera0/last"] == events[2]
    assert last["birds/garden/camera0/crop"] == make_notice(1).jpeg
    assert (last["birds/garden/camera0/present"], last["birds/garden/camera1/present"]) == (
        b"OFF",
        b"ON",
    )
    today = json.loads(last["birds/garden/camera0/today"])
    assert (today["visits"], today["labels"]) == (1, {"red": 1})
    assert subscriber.topic("birds/garden/status") == [b"online", b"offline"]


def test_home_assistant_finds_entities_with_topics_that_exist(tmp_path: Path) -> None:
    with running(tmp_path) as broker:
        sink = publisher(broker.port, discovery="homeassistant")
        for number in (1, 2):
            sink.write(make_notice(number, stream=number - 1))
        with subscribed(broker, name="first") as first:
            wait_until(lambda: first.topic("birds/camera1/today"))
        with subscribed(broker) as subscriber:
            wait_until(lambda: len(subscriber.retained) >= 8 + 1 + 8)
        sink.close()
    found = {t: json.loads(p) for t, p in subscriber.retained.items() if t.endswith("/config")}
    assert len(found) == 8
    assert {topic.split("/")[1] for topic in found} == {
        "sensor",
        "binary_sensor",
        "image",
    }
    assert len({entity["unique_id"] for entity in found.values()}) == 8
    for topic, entity in found.items():
        assert topic.startswith("homeassistant/")
        assert topic.count("/") == 4
        assert entity["device"]["identifiers"] == ["finedge_birds"]
        assert subscriber.retained[entity["availability_topic"]] == b"online"
        read = entity.get("image_topic") or entity["state_topic"]
        assert read in subscriber.retained


# The keys of home-assistant.io/integrations/sensor.mqtt, binary_sensor.mqtt and image.mqtt that
# are used here; `origin` is of mqtt/#mqtt-discovery.
COMMON = {
    "availability_topic",
    "payload_available",
    "payload_not_available",
    "device",
    "origin",
    "unique_id",
    "name",
    "icon",
}
KEYS = {
    "sensor": {
        "state_topic",
        "value_template",
        "json_attributes_topic",
        "state_class",
        "unit_of_measurement",
    },
    "binary_sensor": {"state_topic", "payload_on", "payload_off", "device_class"},
    "image": {"image_topic", "content_type"},
}
REQUIRED = {"sensor": "state_topic", "binary_sensor": "state_topic", "image": "image_topic"}
TOPIC = re.compile(r"homeassistant/(\w+)/[A-Za-z0-9_-]+/[A-Za-z0-9_-]+/config")


def test_what_is_announced_has_the_form_that_home_assistant_documents() -> None:
    jinja2 = pytest.importorskip("jinja2", reason="a device has no jinja2")
    sandbox = pytest.importorskip("jinja2.sandbox")
    jinja = sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    states = {
        "last": make_event(1, answer=Name("r" * 300, 0.9, 0)).record(),
        "today": CameraState().today(),
    }
    cameras = ("rtsp://a/1", "rtsp://a/2")
    found = list(discovery("ä/garden", prefix="homeassistant", title="birds", cameras=cameras))
    for topic, entity in found:
        match = TOPIC.fullmatch(topic)
        assert match is not None
        assert entity.keys() <= COMMON | KEYS[match[1]]
        assert {"unique_id", "name", REQUIRED[match[1]]} <= entity.keys()
        assert entity.get("state_class", "total_increasing") == "total_increasing"
        assert entity.get("device_class", "occupancy") == "occupancy"
        if "value_template" in entity:
            record = states[entity["state_topic"].rpartition("/")[2]]
            # As Home Assistant gets it: from JSON.
            value = json.loads(json.dumps(record))
            state = jinja.from_string(entity["value_template"]).render(value_json=value)
            assert state in ("r" * 255, "0")


def test_no_two_topics_are_one_device() -> None:
    topics = ("a/b", "a_b", "a-b", "a/ä", "a/ö", "a//b", "a__b")
    found = [
        entity["unique_id"]
        for topic in topics
        for _, entity in discovery(topic, prefix="ha", title="birds", cameras=("cam0",))
    ]
    assert len(set(found)) == len(found) == 4 * len(topics)


def test_a_broker_that_stops_and_starts_gets_every_event_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with running(tmp_path) as broker, subscribed(broker) as subscriber:
        sink = publisher(broker.port)
        sink.write(make_notice(0))
        wait_until(lambda: sink.counts.delivered == 1)
        broker.stop()
        for number in range(1, 20):
            sink.write(make_notice(number))
        assert sink.counts.waiting == 19
        broker.start()
        wait_until(lambda: sink.counts == Counts(20, 0, 0))
        sink.close()
        wait_until(lambda: len(subscriber.topic("birds/events")) >= 20)
    assert keys(subscriber.topic("birds/events")) == [(i, "started") for i in range(20)]
    # After the outage only the newest state was published. One whose answer was lost comes twice.
    states = [json.loads(record)["track"] for record in subscriber.topic("birds/camera0/last")]
    assert list(dict.fromkeys(states)) == [0, 19]
    texts = [record.getMessage() for record in caplog.records]
    assert len([text for text in texts if "hung up" in text or "reached" in text]) == 1


def test_a_killed_run_leaves_its_last_will(tmp_path: Path) -> None:
    with running(tmp_path) as broker, subscribed(broker) as subscriber:
        words = [sys.executable, "-c", PUBLISHER, str(broker.port)]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            run.stdout.readline()
            run.send_signal(signal.SIGKILL)
        wait_until(lambda: b"offline" in subscriber.topic("birds/status"))
    assert subscriber.topic("birds/status") == [b"online", b"offline"]


def test_a_refused_password_is_said_once_and_nothing_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "CLOSE_S", 0.2)
    passwords = tmp_path / "passwords"
    passwords.touch()
    subprocess.run(["mosquitto_passwd", "-b", passwords, "me", "right-one"], check=True)
    with running(tmp_path, f"password_file {passwords}") as broker:
        wrong = Mqtt(
            Broker("127.0.0.1", broker.port, "b", user="me", password="wrong-one"), CONTEXT
        )
        wrong.write(make_notice(1))
        wait_until(lambda: caplog.records)
        assert wrong.counts.waiting == 1
        right = Mqtt(
            Broker("127.0.0.1", broker.port, "b", user="me", password="right-one"), CONTEXT
        )
        right.write(make_notice(1))
        wait_until(lambda: right.counts.delivered)
        right.close()
        wrong.finish()
        wrong.close()
    (text,) = [r.getMessage() for r in caplog.records if "refuses" in r.getMessage()]
    assert "Not authorized" in text
    assert PASSWORD in text
    assert "wrong-one" not in text


def test_counts_of_today_go_on_after_a_restart(tmp_path: Path) -> None:
    from datetime import datetime

    now = datetime.now().timestamp()
    with running(tmp_path) as broker, subscribed(broker) as subscriber:
        for run in (1, 2):
            sink = publisher(broker.port)
            wait_until(lambda: sink.connections)  # noqa: B023
            wait_until(lambda: sink._subscribed)  # noqa: B023
            sink.write(make_notice(run, "ended", started_at=now, ended_at=now))
            wait_until(lambda: len(subscriber.topic("birds/camera0/today")) == run)  # noqa: B023
            sink.close()
    visits = [json.loads(p)["visits"] for p in subscriber.topic("birds/camera0/today")]
    assert visits == [1, 2]


def test_tls_needs_a_certificate_that_is_trusted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    with running(tmp_path, f"keyfile {key}", f"certfile {certificate}") as broker:
        good = Broker.parse(f"mqtts://127.0.0.1:{broker.port}/birds", ca=certificate)
        sink = Mqtt(good, CONTEXT)
        sink.write(make_notice(1))
        wait_until(lambda: sink.counts.delivered)
        sink.close()
        stranger = Mqtt(Broker("127.0.0.1", broker.port, "birds", tls=True), CONTEXT)
        wait_until(lambda: any("CERTIFICATE_VERIFY" in r.getMessage() for r in caplog.records))
        stranger.close()
    with pytest.raises(SystemProblem, match="mqtt-ca"):
        Mqtt(Broker("127.0.0.1", 1, "birds", tls=True, ca=tmp_path / "none.pem"), CONTEXT)


@pytest.mark.parametrize(
    "address",
    [
        "http://host/x",
        "mqtt://",
        "mqtt://host:99999/x",
        "mqtt://host/a+b",
        "mqtt://host/#",
        "mqtt",
        "mqtt://a..b/x",
        "mqtt://host/$SYS/x",
        "mqtt://host/%00",
        "mqtt://host/x?y",
        "mqtt://[::1/x",
    ],
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        Broker.parse(address)


def test_options_that_would_do_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing would be encrypted"):
        Broker.parse("mqtt://host/x", ca=tmp_path / "ca.pem")
    with pytest.raises(UsageError, match="without --mqtt"):
        EventOutputs(mqtt_ca=tmp_path / "ca.pem")
    with pytest.raises(UsageError, match="without --store"):
        EventOutputs(store_days=3)


@pytest.mark.parametrize("prefix", ["home/+", "#", "$SYS"])
def test_a_prefix_that_no_broker_takes_is_refused(prefix: str) -> None:
    outputs = EventOutputs(mqtt="mqtt://127.0.0.1:1/x", mqtt_discovery=prefix)
    with pytest.raises(UsageError, match="--mqtt-discovery"), open_event_sinks(outputs, CONTEXT):
        pass


def test_a_password_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from-a-file\n")
    parsed = Broker.parse("mqtt://me@host", environment={PASSWORD: "of-the-environment"})
    assert (parsed.host, parsed.port, parsed.topic) == ("host", 1883, "finedge")
    assert (parsed.user, parsed.password) == ("me", "of-the-environment")
    parsed = Broker.parse("mqtts://me@host/x/y", password_file=file, environment={PASSWORD: "no"})
    assert (parsed.port, parsed.topic, parsed.password) == (8883, "x/y", "from-a-file")
    assert "from-a-file" not in mask_text("it was from-a-file")
    with pytest.raises(UsageError, match="holds a password") as error:
        Broker.parse("mqtt://me:secret-word@host")
    assert "secret-word" not in str(error.value)
    with pytest.raises(SystemProblem):
        Broker.parse("mqtt://me@host", password_file=tmp_path / "missing")
