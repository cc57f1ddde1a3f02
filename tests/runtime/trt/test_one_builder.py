"""Two processes that open the same bundle: one builds, the other takes its engine."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from contextlib import closing

from finedge.runtime.trt.backend import TensorRtBackend
from finedge.runtime.trt.build.options import BuildOptions
from finedge.runtime.trt.build.store import engines_folder
from finedge.runtime.trt.one_builder import NAME, log, one_builder


def test_a_second_process_waits_and_takes_the_engine_of_the_first(device, tiny_bundle, monkeypatch):
    folder, files, waits = engines_folder(tiny_bundle), [], threading.Event()
    monkeypatch.setattr(log, "warning", lambda *message: waits.set())

    def open_and_close():
        with closing(TensorRtBackend().open(tiny_bundle, variant="fp32")) as session:
            files.append(session.info.file)

    thread = threading.Thread(target=open_and_close)
    with one_builder(folder):
        thread.start()
        assert waits.wait(20)
        first = device.build(tiny_bundle, BuildOptions("fp32"), library=device.library)
    thread.join(20)
    assert files == [first.path.name]
    assert len(device.built) == 1


def test_a_killed_process_holds_nothing(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; "
        "from finedge.runtime.trt.one_builder import one_builder; "
        "one_builder(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    handle = os.open(tmp_path / NAME, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


def test_where_nothing_can_be_locked_nobody_waits(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with one_builder(tmp_path / "file" / "engines"):
        pass

    def unsupported(handle, flags):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with one_builder(tmp_path / "engines"):
        pass
