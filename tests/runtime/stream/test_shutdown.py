"""One signal ends a run, whatever hangs in it: real processes, real signals."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import time

import pytest

from finedge.bundle import Bundle

SOON_S = 25.0  # EXIT_AFTER_S and a slow machine's start; a run that hangs would take for ever
FOR_EVER = "threading.Event().wait()"
LIBRARY_CALL = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # no signal ends it

START = """
import hashlib, sys, threading
from finedge.cli import main
from finedge.runtime import fake
from finedge.runtime.sinks import jsonl
from finedge.runtime.sources import rendered_scene
from finedge.runtime.stream import shutdown

def say(*_, **__):
    print("hangs", file=sys.stderr, flush=True)

"""
RUN = """
shutdown.EXIT_AFTER_S = 1.0
sys.exit(main(["classify", sys.argv[1], "test://", "--backend", "fake", *sys.argv[2:]]))
"""
HANG_IN = {
    "model": f"fake.FakeSession.__call__ = lambda self, batch: say() or {FOR_EVER}",
    "model in a library": "fake.FakeSession.__call__ = "
    f"lambda self, batch: say() or {LIBRARY_CALL}",
    "sink": f"jsonl.JsonLines.write = lambda self, *_: say() or {FOR_EVER}",
    "sink in a library": f"jsonl.JsonLines.write = lambda self, *_: say() or {LIBRARY_CALL}",
    "closing a sink": f"jsonl.print = say; jsonl.JsonLines.close = lambda self: {FOR_EVER}",
    "source": f"rendered_scene.RenderedScene.__iter__ = lambda self: say() or {LIBRARY_CALL}",
}
CASES = [("model", signal.SIGINT), *((name, signal.SIGTERM) for name in HANG_IN)]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_one_signal_ends_what_hangs(name: str, number: signal.Signals, tiny_bundle: Bundle) -> None:
    command = [sys.executable, "-c", START + HANG_IN[name] + RUN, str(tiny_bundle.path)]
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
    command = [sys.executable, "-c", START + RUN, str(tiny_bundle.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            # It runs, so its handlers are there. It must end with a full pipe and without.
            assert select.select([process.stdout], [], [], 60)[0]
            time.sleep(2)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=SOON_S) == 130
        finally:
            process.kill()
