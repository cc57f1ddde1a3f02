import signal
import threading

import pytest

from finedge.runtime.trt.build.progress import Stop, interruptible, monitor, progress_bars


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
