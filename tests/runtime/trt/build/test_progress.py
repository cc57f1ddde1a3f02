import ctypes
import os
import signal
import threading
import time

import pytest

from finedge.runtime.trt.build.progress import (
    Stop,
    in_worker,
    interruptible,
    monitor,
    progress_bars,
)


def test_ctrl_c_asks_once_and_is_raised_when_the_library_has_unwound():
    handler = signal.getsignal(signal.SIGINT)
    seen = []

    def interrupted():
        with interruptible() as stop:
            signal.raise_signal(signal.SIGINT)
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))  # the block goes on

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen == [(True, signal.SIG_DFL)]
    assert signal.getsignal(signal.SIGINT) is handler


def test_another_thread_has_no_signals_and_builds_all_the_same():
    seen = []

    def work():
        with interruptible() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


class WorkingLibrary:
    """Builds in C, where Python's signals cannot reach it, and reports from its own thread.

    `build` blocks in a mutex, which no signal interrupts, until the other thread has done its
    steps.
    """

    def __init__(self, watch, steps, interrupt):
        self.watch, self.steps, self.done, self.interrupt = watch, steps, 0, interrupt
        self.libc, self.mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        self.started = threading.Event()

    def build(self):
        worker = threading.Thread(target=self.work)
        worker.start()
        self.started.wait()
        self.libc.pthread_mutex_lock(self.mutex)
        return "an engine"

    def work(self):
        self.libc.pthread_mutex_lock(self.mutex)
        self.started.set()
        while self.done < self.steps and self.watch.step_complete("Building", self.done):
            self.done += 1
            if self.done == 2:
                self.interrupt()
            time.sleep(0.01)
        self.libc.pthread_mutex_unlock(self.mutex)


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def signal_to_this_thread():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("interrupt", [ctrl_c, signal_to_this_thread])
def test_ctrl_c_stops_a_library_that_reports_from_its_own_thread(rtx, interrupt):
    libraries = []

    def interrupted():
        with progress_bars("birds") as bars, interruptible() as stop:
            library = WorkingLibrary(monitor(rtx.trt, bars, stop), steps=500, interrupt=interrupt)
            libraries.append(library)
            in_worker(library.build)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert 2 <= libraries[0].done < 500


def test_what_a_worker_returns_and_raises_is_ours():
    assert in_worker(lambda: threading.current_thread()) is not threading.main_thread()
    with pytest.raises(ValueError, match="inner"):
        in_worker(lambda: int("inner"))


def test_an_error_inside_is_not_hidden():
    with pytest.raises(ValueError, match="inner"), interruptible():
        raise ValueError("inner")


def test_phases_nest_and_the_build_goes_on_until_asked(rtx):
    stop = Stop()
    with progress_bars("birds") as bars:
        watch = monitor(rtx.trt, bars, stop)
        watch.phase_start("Building engine", None, 6)
        watch.phase_start("Timing graph nodes", "Building engine", 3)
        assert set(bars.tasks) == {"Building engine", "Timing graph nodes"}
        assert watch.step_complete("Timing graph nodes", 0)
        stop.request()
        assert not watch.step_complete("Timing graph nodes", 1)
        watch.phase_finish("Timing graph nodes")
        watch.phase_finish("never started")
        assert set(bars.tasks) == {"Building engine"}


def test_nothing_is_drawn_where_stderr_is_no_terminal(rtx, capsys):
    with progress_bars("birds") as bars:
        monitor(rtx.trt, bars, Stop()).phase_start("Building engine", None, 6)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
