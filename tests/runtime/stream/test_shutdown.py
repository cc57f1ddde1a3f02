"""One signal ends a run, whatever hangs in it: real processes, real signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from finedge.bundle import Bundle

SOON_S = 25.0  # LAST_S and a slow machine's start; a run that hangs would take for ever
START = "import sys, threading, hashlib; from finedge.cli import main; from finedge.runtime import fake, leash; "
RUN = "; leash.LAST_S = 5.0; sys.exit(main(['classify', sys.argv[1], 'test://', '--backend', 'fake', *sys.argv[2:]]))"
CALL = "fake.FakeSession.__call__ = lambda self, batch: print('hangs', file=sys.stderr, flush=True) or {}"
WRITE = "jsonl.JsonLines.{} = lambda self, *_: print('hangs', file=sys.stderr, flush=True) or {}"
FOR_EVER = "threading.Event().wait()"
LIBRARY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # no signal ends it
HANGS = {
    "model": CALL.format(FOR_EVER),
    "model in a library": CALL.format(LIBRARY),
    "sink": "from finedge.runtime.sinks import jsonl; " + WRITE.format("write", FOR_EVER),
    "sink in a library": "from finedge.runtime.sinks import jsonl; "
    + WRITE.format("write", LIBRARY),
    "closing a sink": "from finedge.runtime.sinks import jsonl; jsonl.print = lambda *_, **__: print('hangs', file=sys.stderr, flush=True); "
    + "jsonl.JsonLines.close = lambda self: threading.Event().wait()",
    "source": "from finedge.runtime.sources import scene; scene.Scene.__iter__ = lambda self: print('hangs', file=sys.stderr, flush=True) or "
    + LIBRARY,
}


@pytest.mark.parametrize(
    ("name", "number"), [("model", signal.SIGINT), *((name, signal.SIGTERM) for name in HANGS)]
)
def test_one_signal_ends_what_hangs(name: str, number: signal.Signals, tiny_bundle: Bundle) -> None:
    command = [sys.executable, "-c", START + HANGS[name] + RUN, str(tiny_bundle.path)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert any(line == "hangs\n" for line in process.stderr)
            time.sleep(0.5)  # the first frame may come before the handlers are there
            start = time.monotonic()
            process.send_signal(number)
            process.communicate(timeout=SOON_S)
        finally:
            process.kill()
    assert process.returncode == 130
    assert time.monotonic() - start < SOON_S


def test_a_reader_that_does_not_read_does_not_keep_a_run_alive(tiny_bundle: Bundle) -> None:
    command = [sys.executable, "-c", START + "pass" + RUN, str(tiny_bundle.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            time.sleep(4)  # the pipe is full then or not: it must end either way
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=SOON_S) == 130
        finally:
            process.kill()
