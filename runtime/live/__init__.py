"""The live page of `finedge classify --serve`: the newest frame, its answer and its age, in any browser."""

from finedge.runtime.live.page import LivePage

__all__ = ["LivePage"]
