"""Where events go, as the options of `finedge classify` name it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from finedge.errors import UsageError

MAX_BEFORE_S = 30.0  # the frames before a visit are kept in memory


@dataclass(frozen=True)
class EventOutputs:
    """Where events go besides stdout.

    Attributes:
        store: keep events and their best crops in this SQLite file; `finedge events FILE` lists
            them.
        store_days: remove events from the file that ended so many days ago; 0 keeps all of them.
        store_max_mib: the size of the file. The oldest events are removed first.
        mqtt: publish events to this broker, as mqtt[s]://USER@HOST:PORT/TOPIC. The password is in
            FINEDGE_MQTT_PASSWORD or in a file, and never in the address.
        mqtt_password_file: a file whose first line is the broker's password.
        mqtt_ca: a PEM file with the certificate that signed the broker's; for mqtts. Without it,
            those of the system.
        mqtt_discovery: the prefix of Home Assistant's discovery topics; "" announces nothing.
        webhook: POST each event as JSON to this http or https address. FINEDGE_WEBHOOK_KEY signs
            the requests.
        metrics: serve counts for Prometheus at this address, e.g. 127.0.0.1:9100, under /metrics.
            With --serve, the page's address has them too.
        clips: write the best crop of each visit to this folder, as DIR/DAY/TIME-LABEL.jpg.
        clip_before_s: also write a video of each visit there, that begins so many seconds earlier.
        clips_max_mib: the size of all crops and clips there. The oldest are removed first; other
            files stay.
    """

    store: Path | None = None
    store_days: float = 0.0
    store_max_mib: float = 1024.0
    mqtt: str | None = None
    mqtt_password_file: Path | None = None
    mqtt_ca: Path | None = None
    mqtt_discovery: str = "homeassistant"
    webhook: str | None = None
    metrics: str | None = None
    clips: Path | None = None
    clip_before_s: float | None = None
    clips_max_mib: float = 4096.0

    def __post_init__(self) -> None:
        if not (0 <= self.store_days < math.inf and self.store_max_mib > 0):
            raise UsageError(
                f"--store-days {self.store_days} --store-max-mib {self.store_max_mib}",
                expected="days, 0 or more, and a size above 0",
            )
        if self.mqtt is None and (self.mqtt_ca or self.mqtt_password_file):
            raise UsageError(
                "--mqtt-ca or --mqtt-password-file without --mqtt", expected="--mqtt ADDRESS"
            )
        if self.store is None and self.store_days:
            raise UsageError("--store-days without --store", expected="--store FILE")
        if not self.clips_max_mib > 0:
            raise UsageError(f"--clips-max-mib {self.clips_max_mib}", expected="a size above 0")
        if self.clip_before_s is None:
            return
        if not 0 <= self.clip_before_s <= MAX_BEFORE_S:
            raise UsageError(
                f"--clip-before-s {self.clip_before_s}", expected=f"seconds, 0 to {MAX_BEFORE_S:g}"
            )
        if self.clips is None:
            raise UsageError("--clip-before-s without --clips", expected="--clips DIR")
