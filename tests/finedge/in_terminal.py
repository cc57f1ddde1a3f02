"""Run Python in a terminal of a given width: a real one, made with `pty`."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ROOT = Path(__file__).resolve().parents[2]


def in_terminal(
    *words: str, columns: int = 80, stderr: bool = False, **environment: str
) -> tuple[int, str, str]:
    """Run `python WORDS`; return the exit code, what stdout wrote to the terminal, and stderr.

    With `stderr` that goes to the terminal too.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, *words],
        stdin=slave,
        stdout=slave,
        stderr=slave if stderr else subprocess.PIPE,
        env={**variables, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment},
    )
    os.close(slave)
    written = bytearray()
    while chunk := _read(master):
        written += chunk
    os.close(master)
    _, errors = process.communicate()
    return process.returncode, written.decode().replace("\r\n", "\n"), (errors or b"").decode()


def plain(text: str) -> str:
    """Return a terminal's text without its control sequences."""
    return CONTROL.sub("", text)


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # the other side is closed
        return b""
