"""A real mosquitto of Debian, started, killed and stopped; and a subscriber that notes all."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATH = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
SOON_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A broker that keeps its sessions on disk, as a house's broker does."""

    def __init__(self, folder: Path, *lines: str) -> None:
        if PATH is None:
            pytest.skip("mosquitto is missing: apt-get install mosquitto")
        self.port = free_port()
        self.config = folder / "mosquitto.conf"
        logins = () if any("password_file" in line for line in lines) else ("allow_anonymous true",)
        kept = (
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_on_changes true",
            "autosave_interval 1",
            "max_queued_messages 0",
            "user root",
        )
        text = [f"listener {self.port} 127.0.0.1", *logins, *kept, *lines]
        self.config.write_text("\n".join(text) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert PATH is not None
        self._process = subprocess.Popen(
            [PATH, "-c", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + SOON_S
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, "mosquitto ended"
            time.sleep(0.01)
        raise AssertionError("mosquitto does not listen")

    def stop(self, *, kill: bool = False) -> None:
        if self._process is not None:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(SOON_S)
        self._process = None


@contextmanager
def running(folder: Path, *lines: str) -> Iterator[Mosquitto]:
    broker = Mosquitto(folder, *lines)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


class Subscriber:
    """Notes every message; its session outlives the broker.

    A broker that ended before it read the subscriber's answer sends the message again, marked as a
    duplicate. Such copies are counted apart: they say nothing of the publisher.
    """

    def __init__(
        self, port: int, *, pattern: str = "#", name: str = "watcher", qos: int = 1, **login: str
    ) -> None:
        mqtt = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is missing")
        self.messages: list[tuple[str, bytes]] = []
        self.retained: dict[str, bytes] = {}
        self.connected, self.redelivered = False, 0
        self._pattern, self._qos = pattern, qos
        self._client: Any = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, clean_session=False
        )
        if login:
            self._client.username_pw_set(login["user"], login["password"])
        self._client.on_message = self._note
        self._client.on_connect = self._subscribe
        self._client.on_disconnect = lambda *_: setattr(self, "connected", False)
        self._client.on_subscribe = lambda *_: setattr(self, "connected", True)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def topic(self, topic: str) -> list[bytes]:
        return [payload for name, payload in self.messages if name == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _subscribe(self, *_: object) -> None:
        self._client.subscribe(self._pattern, qos=self._qos)

    def _note(self, _client: object, _data: object, message: Any) -> None:
        if message.dup and (message.topic, message.payload) in self.messages[-1000:]:
            self.redelivered += 1
            return
        self.messages.append((message.topic, message.payload))
        if message.retain:
            self.retained[message.topic] = message.payload
