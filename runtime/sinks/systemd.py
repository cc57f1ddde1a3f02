"""Signs of life for systemd.

A unit with Type=notify and WatchdogSec is restarted when no result has come for that long. The
protocol is that of sd_notify(3): lines of NAME=value in one datagram to the socket that
NOTIFY_SOCKET names. Where that is unset nobody listens, and there is no such sink.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

from finedge.errors import UsageError
from finedge.runtime.sinks.base import Context, Outputs, Result
from finedge.sanitize import printable

log = logging.getLogger(__name__)

MAX_LABEL = 200  # characters: a datagram has a largest size
# Between signs of life where no watchdog sets the pace: people read the status line.
INTERVAL_S = 1.0


class Systemd:
    """Reports "ready" at the first result, a sign of life at later ones, and "stopping" at the end.

    A silence of the source is a result too.
    """

    def __init__(self, address: str, *, interval_s: float = INTERVAL_S) -> None:
        # An abstract socket's name starts with a zero byte. The environment cannot hold one, so
        # systemd writes @.
        self.address = "\0" + address[1:] if address.startswith("@") else address
        self.interval_s = interval_s
        self.next_s = float("-inf")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.setblocking(False)

    def write(self, result: Result) -> None:
        """Notify systemd, at most once in the interval."""
        if time.monotonic() < self.next_s:
            return
        self.next_s = time.monotonic() + self.interval_s
        self._send("READY=1", "WATCHDOG=1", f"STATUS={status_of(result)}")

    def close(self) -> None:
        """Notify systemd that the end is on purpose."""
        self._send("STOPPING=1")
        self.socket.close()

    def _send(self, *lines: str) -> None:
        try:
            self.socket.sendto("\n".join(map(printable, lines)).encode(), self.address)
        except OSError as error:  # the next sign may get through; systemd judges its absence
            log.debug("systemd does not listen at %s: %s", self.address, error)


def status_of(result: Result) -> str:
    """Return what `systemctl status` shows: the source's status and the first label."""
    top = result.record["top"]
    if not top:
        return str(result.record["status"])
    return f"{result.record['status']}: {top[0]['label'][:MAX_LABEL]} {top[0]['p']:.0%}"


def open_systemd(
    outputs: Outputs, context: Context, *, environment: Mapping[str, str] = os.environ
) -> Systemd | None:
    """Return the sink where systemd listens.

    Its interval is at most half the watchdog's time, as sd_watchdog_enabled(3) advises.

    Raises:
        UsageError: the options let results come less often than the watchdog expects them.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None
    watchdog_us = environment.get("WATCHDOG_USEC", "")
    watchdog_s = int(watchdog_us) / 1e6 if watchdog_us.isdigit() else float("inf")
    if context.quiet_s >= watchdog_s:
        raise UsageError(
            f"--interval or --no-signal-ms let {context.quiet_s:g} s pass without a result, "
            f"under a watchdog of {watchdog_s:g} s",
            expected="a result within the watchdog's time",
            fix=f"set WatchdogSec={2 * context.quiet_s:g} in the unit",
        )
    return Systemd(address, interval_s=min(INTERVAL_S, watchdog_s / 2))
