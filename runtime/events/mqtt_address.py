"""The address of a broker and its topic, and the password that is never in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from finedge.errors import SystemProblem, UsageError
from finedge.redact import learn_secret, mask
from finedge.regular_files import read_regular
from finedge.runtime.sources.address import refuse_unsendable

FORM = "mqtt://USER@HOST:PORT/TOPIC, or mqtts:// for TLS"
PORTS = {"mqtt": 1883, "mqtts": 8883}
DEFAULT_TOPIC = "finedge"
PASSWORD = "FINEDGE_MQTT_PASSWORD"  # the name of the variable
MAX_PASSWORD = 65535  # bytes, by the standard
# A topic that begins with $ is the broker's own.
TOPIC = re.compile(r"[^$\s+#/\x00-\x1f\x7f][^+#\x00-\x1f\x7f]{0,200}")


@dataclass(frozen=True)
class Broker:
    """Where a broker is, and who logs in.

    Attributes:
        host: a name or an address.
        port: of TCP.
        topic: all topics of the run begin with it.
        tls: whether the connection is encrypted, and the broker's certificate is verified.
        user: None logs in without a name.
        password: None sends none.
        ca: the certificate that signed the broker's; None is those of the system.
    """

    host: str
    port: int
    topic: str
    tls: bool = False
    user: str | None = None
    password: str | None = None
    ca: Path | None = None

    @classmethod
    def parse(
        cls,
        address: str,
        *,
        password_file: Path | None = None,
        ca: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Broker:
        """Read an address, and the password of a file or of the environment.

        Raises:
            UsageError: the address has another form, or holds the password.
            SystemProblem: the file cannot be read.
        """
        error = UsageError(f"--mqtt {mask(address)}", expected=FORM)
        refuse_unsendable(address)
        try:
            parts = urlsplit(address)
            port, host = parts.port, parts.hostname
            if host:
                host.encode("idna")  # paho's thread would end with it
        except ValueError:
            raise error from None
        if parts.scheme not in PORTS or not host or port == 0 or " " in host:
            raise error
        if parts.query or "#" in address:
            raise error
        if parts.password is not None:
            raise UsageError(
                f"--mqtt {mask(address)} holds a password: every user of this machine can read it",
                expected="the password in the environment, or in a file",
                fix=f"set {PASSWORD}, or name a file with --mqtt-password-file",
            )
        if ca is not None and parts.scheme != "mqtts":
            raise UsageError(
                f"--mqtt-ca with {parts.scheme}://: nothing would be encrypted",
                expected="mqtts://HOST",
            )
        topic = check_topic(unquote(parts.path).strip("/") or DEFAULT_TOPIC, option="--mqtt")
        user = unquote(parts.username) if parts.username else None
        if user is None and password_file is not None:
            raise UsageError("--mqtt-password-file without a user in --mqtt", expected=FORM)
        password = _password(password_file, environment) if user is not None else None
        return cls(
            host,
            port or PORTS[parts.scheme],
            topic,
            tls=parts.scheme == "mqtts",
            user=user,
            password=password,
            ca=ca,
        )

    @property
    def name(self) -> str:
        """Host and port, as messages show them."""
        return f"{self.host}:{self.port}"


def check_topic(topic: str, *, option: str) -> str:
    """Return a topic below which a run may publish.

    Raises:
        UsageError: the broker would refuse it.
    """
    if not TOPIC.fullmatch(topic):
        raise UsageError(
            f"{option}: the topic '{topic}'",
            expected="at most 201 characters, without +, #, line ends, and a $ at its start",
        )
    return topic


def _password(file: Path | None, environment: Mapping[str, str]) -> str | None:
    text = environment.get(PASSWORD)
    if file is not None:
        try:
            data = read_regular(file, limit=MAX_PASSWORD)
        except OSError as error:
            raise SystemProblem(
                f"--mqtt-password-file {file}: {error.strerror}",
                expected="a file whose first line is the password",
            ) from error
        text = (data.decode(errors="replace").splitlines() or [""])[0]
    if text:
        learn_secret(text)
    return text or None
