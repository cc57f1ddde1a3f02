"""Signs of life for systemd: a unit with Type=notify and WatchdogSec is restarted when no result has come for so long.

The protocol is that of sd_notify(3): lines of NAME=value in one datagram to the socket that NOTIFY_SOCKET names. Nobody listens where
it is unset, and then there is no such sink.
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

SHOWN = 200  # characters of a label: a datagram has a largest size
INTERVAL_S = (
    1.0  # between signs where no watchdog says how often: the status line is read by people
)


class Systemd:
    """Says "ready" at the first result, that it is alive at the following ones, and "stopping" at the end. A silence of the source is a result too."""

    def __init__(self, address: str, *, interval_s: float = INTERVAL_S) -> None:
        # An abstract socket's name starts with a zero byte, which the environment cannot hold: systemd writes @.
        self.address = "\0" + address[1:] if address.startswith("@") else address
        self.interval_s = interval_s
        self.next_s = float("-inf")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.setblocking(False)

    def write(self, result: Result) -> None:
        """Tell systemd, at most once in the interval."""
        if time.monotonic() < self.next_s:
            return
        self.next_s = time.monotonic() + self.interval_s
        self._send("READY=1", "WATCHDOG=1", f"STATUS={status_of(result)}")

    def close(self) -> None:
        """Tell systemd that the end is on purpose."""
        self._send("STOPPING=1")
        self.socket.close()

    def _send(self, *lines: str) -> None:
        try:
            self.socket.sendto("\n".join(map(printable, lines)).encode(), self.address)
        except (
            OSError
        ) as error:  # the next sign may get through; systemd decides what its absence means
            log.debug("systemd does not listen at %s: %s", self.address, error)


def status_of(result: Result) -> str:
    """Return what `systemctl status` shows: the source's status and the first label."""
    top = result.record["top"]
    if not top:
        return str(result.record["status"])
    return f"{result.record['status']}: {top[0]['label'][:SHOWN]} {top[0]['p']:.0%}"


def open_systemd(
    outputs: Outputs, context: Context, *, environment: Mapping[str, str] = os.environ
) -> Systemd | None:
    """Return the sink where systemd listens; half its watchdog's time is the longest interval, as sd_watchdog_enabled(3) advises.

    Raises:
        UsageError: results are asked for less often than the watchdog wants a sign of life.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None
    told = environment.get("WATCHDOG_USEC", "")
    watchdog_s = int(told) / 1e6 if told.isdigit() else float("inf")
    if context.quiet_s >= watchdog_s:
        raise UsageError(
            f"--interval or --no-signal-ms let {context.quiet_s:g} s pass without a result, under a watchdog of {watchdog_s:g} s",
            expected="a result within the watchdog's time",
            fix=f"set WatchdogSec={2 * context.quiet_s:g} in the unit",
        )
    return Systemd(address, interval_s=min(INTERVAL_S, watchdog_s / 2))
