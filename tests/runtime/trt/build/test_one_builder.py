"""Two processes that open the same bundle: one builds, the other takes its engine."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from contextlib import closing

from finedge.runtime.trt.backend import TensorRtBackend
from finedge.runtime.trt.build import builder
from finedge.runtime.trt.build.one_builder import log, one_builder
from finedge.runtime.trt.build.options import BuildOptions


def test_who_opens_while_another_builds_takes_that_engine(device, tiny_bundle, monkeypatch):
    files, compiles, waits = [], threading.Event(), threading.Event()

    def compile_once_waited_for(model, order):
        compiles.set()
        assert waits.wait(20)
        return device.compile(model, order)

    def open_and_close():
        assert compiles.wait(20)
        with closing(TensorRtBackend().open(tiny_bundle, variant="fp32")) as session:
            files.append(session.info.file)

    monkeypatch.setattr(builder, "compile_engine", compile_once_waited_for)
    monkeypatch.setattr(log, "warning", lambda *message: waits.set())
    thread = threading.Thread(target=open_and_close)
    thread.start()
    first = device.build(tiny_bundle, BuildOptions("fp32"), library=device.library)
    thread.join(20)
    assert files == [first.path.name]
    assert len(device.built) == 1


def test_a_killed_process_holds_nothing(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; "
        "from finedge.runtime.trt.build.one_builder import one_builder; "
        "one_builder(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


def test_where_nothing_can_be_locked_nobody_waits(tmp_path, monkeypatch):
    with one_builder(tmp_path / "missing"):
        pass

    def unsupported(handle, flags):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with one_builder(tmp_path):
        pass
