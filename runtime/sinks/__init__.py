"""Where results go: stdout, a video, a folder, a window, a web page, systemd.

The table `SINKS` holds every kind; `base.py` says what a sink is. A sink may import the contract
and `finedge.runtime.telemetry`. `finedge.runtime.stream.run` opens the sinks that its options
ask for, and writes every result to each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from finedge.errors import SystemProblem
from finedge.runtime.serve.access import given_token
from finedge.runtime.sinks.base import Context, Outputs, Result, Sink
from finedge.runtime.sinks.collect import open_collect
from finedge.runtime.sinks.jsonl import open_lines
from finedge.runtime.sinks.systemd import open_systemd
from finedge.runtime.sinks.video import open_video
from finedge.runtime.sinks.window import open_window

__all__ = ["SINKS", "Context", "Outputs", "Result", "Sink", "open_sinks"]


def _open_live(outputs: Outputs, context: Context) -> Sink | None:
    if outputs.serve is None:
        return None
    try:
        from finedge.runtime.sinks.live.archive import Archive
        from finedge.runtime.sinks.live.page import LivePage  # a web server: most runs have none
    except ModuleNotFoundError as error:
        raise SystemProblem(
            f"--serve needs the package '{error.name}'", fix="pip install 'finedge[serve]'"
        ) from error

    archive = None
    if context.store is not None:
        archive = Archive(context.store, cameras=context.names)
    cameras = context.names if len(context.names) > 1 else ()
    return LivePage(
        outputs.serve,
        token=given_token(outputs.token),
        title=context.title,
        cameras=cameras,
        quiet_s=context.quiet_s,
        classifier=context.classifier,
        archive=archive,
        reports=context.reports,
        metrics=context.metrics,
    )


# Each function opens its sink, or returns None where the options do not ask for it. Results are
# written in this order: the line first.
SINKS: dict[str, Callable[[Outputs, Context], Sink | None]] = {
    "jsonl": open_lines,
    "video": open_video,
    "collect": open_collect,
    "window": open_window,
    "live": _open_live,
    "systemd": open_systemd,
}


@contextmanager
def open_sinks(outputs: Outputs, context: Context) -> Iterator[list[Sink]]:
    """Open the sinks that the options ask for; close all of them, whatever happens."""
    with ExitStack() as exits:
        sinks = []
        for open_sink in SINKS.values():
            sink = open_sink(outputs, context)
            if sink is not None:
                exits.callback(sink.close)
                sinks.append(sink)
        yield sinks
