"""Events to an MQTT broker, by paho.

    TOPIC/status           online or offline: retained; "offline" is the last will
    TOPIC/events           each event as its JSON line; not retained
    TOPIC/cameraN/last     the record of the last event: retained, as are those below
    TOPIC/cameraN/crop     its best crop, a JPEG
    TOPIC/cameraN/present  ON while a visit is open, else OFF
    TOPIC/cameraN/today    {"day", "visits", "labels"}

Everything has quality of service 1: at least once. The broker's answer to a message may be lost
with the connection, and paho then sends the message again: the event's `id` and `event` tell that
it is the same. Quality of service 2 would be exactly once, but only with a broker that keeps its
sessions on disk. One that is killed between the halves of the handshake loses the message, and
nobody learns of it. A message that came twice can be found, and one that never came cannot.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.events.camera_state import CameraState
from finedge.runtime.events.home_assistant import (
    ABSENT,
    OFFLINE,
    ONLINE,
    PRESENT,
    camera_topic,
    discovery,
    status_topic,
)
from finedge.runtime.events.mqtt_address import Broker, check_topic
from finedge.runtime.events.notice import Counts, Notice, NoticeSink, Problem
from finedge.runtime.events.outbox import SIZE, Outbox, Undelivered
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.machine.packages import PackageMissing, load_package
from finedge.runtime.sinks import Context, Result

log = logging.getLogger(__name__)

QOS = 1
KEEP_ALIVE_S = 30  # after 1.5 times this the broker publishes the last will
LONGEST_PAUSE_S = 60  # between two tries to connect; the first pause is 1 s
WAIT_S = 0.5
FIRST_DAY_CHECK_S, DAY_CHECK_S = 5.0, 30.0  # the first waits for what an earlier run counted
SENT = 256  # answers of the broker that are remembered
REFUSED = ("not authorized", "bad user name or password", "banned", "bad authentication method")


class Mqtt:
    """Publishes events; no call waits for the broker.

    While the broker is away, events wait in the queue of an `Outbox`. One event at a time is with
    paho, so their order is kept.

    Args:
        broker: where it is.
        context: of the run.
        discovery_prefix: of Home Assistant; "" announces nothing.
        size: how many events wait at most.

    Raises:
        SystemProblem: paho is missing, or the certificate cannot be read.
    """

    name = "mqtt"

    def __init__(
        self, broker: Broker, context: Context, *, discovery_prefix: str = "", size: int = SIZE
    ) -> None:
        self._broker, self._context, self._prefix = broker, context, discovery_prefix
        self._states = [CameraState() for _ in context.names]
        self._answered = threading.Condition()
        self._answers: list[int] = []
        self._lock = threading.Lock()  # of the states
        self._latest: dict[int, tuple[str, bytes]] = {}  # record and crop that are not retained
        self._problem, self.connections, self._subscribed = Problem(), 0, False
        self._day_check, self._published_today = time.monotonic() + FIRST_DAY_CHECK_S, False
        self._client = self._make_client()
        self._outbox = Outbox("mqtt", self._publish, release=self._leave, size=size)
        self._client.connect_async(broker.host, broker.port, keepalive=KEEP_ALIVE_S)
        self._client.loop_start()

    def see(self, result: Result) -> None:
        """Begin a new day at midnight, also without an event."""
        if time.monotonic() < self._day_check:
            return
        self._day_check = time.monotonic() + DAY_CHECK_S
        today = datetime.now().astimezone().date()
        for stream, state in enumerate(self._states):
            with self._lock:
                is_new = state.turn(today) or not self._published_today
            if is_new:
                self._retain_today(stream)
        self._published_today = True

    def write(self, notice: Notice) -> None:
        """Queue a notice."""
        with self._lock:  # here: a notice that the queue drops counts too
            self._states[notice.event.stream].add(notice.event)
        self._outbox.write(notice)

    def finish(self) -> None:
        """Begin to end."""
        self._outbox.finish()

    def close(self) -> None:
        """Publish what waits, then `offline`, in bounded time."""
        self._outbox.close()

    @property
    def counts(self) -> Counts:
        """What became of the notices so far."""
        return self._problem.shown(self._outbox.counts)

    def _publish(self, notice: Notice) -> None:
        """Publish an event and wait for the broker's answer, also over many connections."""
        event = notice.event
        record = json.dumps(event.record())
        mid = self._client.publish(f"{self._broker.topic}/events", record, qos=QOS).mid
        with self._answered:
            while mid not in self._answers:
                if self._outbox.left_s <= 0:
                    raise Undelivered("", again=False)  # the problem was said when it began
                self._answered.wait(WAIT_S)
        self._latest[event.stream] = record, notice.jpeg
        if self._outbox.newest:  # after an hour without a broker only the last states matter
            self._retain_latest()

    def _retain_latest(self) -> None:
        """Publish the state of each camera that has changed."""
        topic = self._broker.topic
        for stream, (record, jpeg) in self._latest.items():
            self._retain(camera_topic(topic, stream, "last"), record)
            self._retain(camera_topic(topic, stream, "crop"), jpeg)
            self._retain_present(stream)
            self._retain_today(stream)
        self._latest.clear()

    def _retain(self, topic: str, payload: str | bytes) -> None:
        self._client.publish(topic, payload, qos=QOS, retain=True)

    def _retain_present(self, stream: int) -> None:
        with self._lock:
            present = PRESENT if self._states[stream].open else ABSENT
        self._retain(camera_topic(self._broker.topic, stream, "present"), present)

    def _retain_today(self, stream: int) -> None:
        with self._lock:
            text = json.dumps(self._states[stream].today())
        self._retain(camera_topic(self._broker.topic, stream, "today"), text)

    def _make_client(self) -> Any:
        try:
            mqtt = load_package("paho.mqtt.client")
        except PackageMissing as error:
            raise SystemProblem(
                "--mqtt needs the package paho-mqtt", fix="pip install 'finedge[events]'"
            ) from error
        broker = self._broker
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=f"finedge-{secrets.token_hex(6)}"
        )
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            try:
                client.tls_set(ca_certs=None if broker.ca is None else str(broker.ca))
            except OSError as error:
                raise SystemProblem(
                    f"--mqtt-ca {broker.ca}: {error}", expected="certificates as PEM"
                ) from error
        client.will_set(status_topic(broker.topic), OFFLINE, qos=QOS, retain=True)
        client.reconnect_delay_set(1, LONGEST_PAUSE_S)
        client.max_queued_messages_set(0)  # the outbox bounds them
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail, client.on_publish = self._on_connect_fail, self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = lambda *_: setattr(self, "_subscribed", True)
        return client

    def _leave(self) -> None:
        """Publish `offline` and end the connection."""
        if self._client.is_connected():
            topic = status_topic(self._broker.topic)
            info = self._client.publish(topic, OFFLINE, qos=QOS, retain=True)
            with suppress(ValueError, RuntimeError):  # the connection broke
                info.wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _more: Any) -> None:
        if reason.is_failure:
            self._say(f"{self._broker.name} refuses the connection: {reason}", _advice(str(reason)))
            return
        self.connections += 1
        if self._problem.text:
            log.info("--mqtt: connected to %s again", self._broker.name)
        self._problem.end()
        self._retain(status_topic(self._broker.topic), ONLINE)
        if self._prefix:
            for topic, payload in discovery(
                self._broker.topic,
                prefix=self._prefix,
                title=self._context.title,
                cameras=self._context.names,
            ):
                self._retain(topic, json.dumps(payload))
        if self.connections == 1:  # what an earlier run counted today
            client.subscribe(self._counts_of_today)
        for stream in range(len(self._states)):
            self._retain_present(stream)

    def _on_message(self, client: Any, _data: Any, message: Any) -> None:
        """Take the counts of today that an earlier run left: the broker kept them."""
        if not message.retain:  # the first of this run
            client.unsubscribe(self._counts_of_today)
            return
        with suppress(ValueError, KeyError, RecursionError):
            stream = int(message.topic.rpartition("/today")[0].rpartition("/camera")[2])
            record = json.loads(message.payload)
            if isinstance(record, dict) and 0 <= stream < len(self._states):
                with self._lock:
                    self._states[stream].restore(record)

    def _on_connect_fail(self, _client: Any, _data: Any) -> None:
        # paho calls it within its `except`.
        self._say(f"{self._broker.name} cannot be reached: {sys.exc_info()[1]}")

    def _on_disconnect(self, _client: Any, _data: Any, _f: Any, reason: Any, _more: Any) -> None:
        if reason.is_failure and not self._outbox.closing:
            self._say(f"{self._broker.name} hung up: {reason}")

    @property
    def _counts_of_today(self) -> str:
        return f"{self._broker.topic}/+/today"

    def _on_publish(self, _client: Any, _data: Any, mid: int, _reason: Any, _more: Any) -> None:
        with self._answered:
            self._answers = [*self._answers[-SENT:], mid]
            self._answered.notify_all()

    def _say(self, problem: str, fix: str = "the events wait, and it is tried again") -> None:
        """Say a problem once, until a connection is made."""
        if not self._problem.text:
            expected = "a broker that takes the connection"
            log.warning("--mqtt: %s", SystemProblem(problem, expected=expected, fix=fix))
        self._problem.begin(problem)


def _advice(reason: str) -> str:
    if reason.lower() in REFUSED:
        return "check the user in --mqtt, and FINEDGE_MQTT_PASSWORD; the events wait"
    return "the events wait, and it is tried again"


def open_mqtt(
    outputs: EventOutputs, context: Context, *, opened: Sequence[NoticeSink]
) -> NoticeSink | None:
    """Return the sink of --mqtt."""
    if outputs.mqtt is None:
        return None
    broker = Broker.parse(
        outputs.mqtt, password_file=outputs.mqtt_password_file, ca=outputs.mqtt_ca
    )
    prefix = outputs.mqtt_discovery.strip("/")
    if prefix:
        check_topic(prefix, option="--mqtt-discovery")
    return Mqtt(broker, context, discovery_prefix=prefix)
