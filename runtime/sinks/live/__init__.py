"""The live page of `finedge classify --serve`: the newest frame, its answer and its age, in any browser."""

from finedge.runtime.sinks.live.page import LivePage

__all__ = ["LivePage"]
