"""Where results go: the table `SINKS` holds every kind."""

from __future__ import annotations

import os
from collections.abc import Callable

from finedge.runtime.sinks.base import Context, Outputs, Result, Sink
from finedge.runtime.sinks.collect import open_collect
from finedge.runtime.sinks.jsonl import open_lines
from finedge.runtime.sinks.systemd import open_systemd
from finedge.runtime.sinks.video import open_video
from finedge.runtime.sinks.window import open_window

__all__ = ["SINKS", "Context", "Outputs", "Result", "Sink"]


def _open_live(outputs: Outputs, context: Context) -> Sink | None:
    if outputs.serve is None:
        return None
    from finedge.runtime.sinks.live import LivePage  # a web server, which most runs need not load

    token = outputs.token if outputs.token is not None else os.environ.get("FINEDGE_TOKEN") or None
    cameras = context.names if len(context.names) > 1 else ()
    return LivePage(
        outputs.serve, token=token, title=context.title, cameras=cameras, quiet_s=context.quiet_s
    )


# Each opens its sink where the options ask for it. In this order a result is written: the line first.
SINKS: dict[str, Callable[[Outputs, Context], Sink | None]] = {
    "jsonl": open_lines,
    "video": open_video,
    "collect": open_collect,
    "window": open_window,
    "live": _open_live,
    "systemd": open_systemd,
}
