"""Power, clocks, heat and throttling of this machine: `read_telemetry()` once, or a `Reader` asked again and again."""

from finedge.runtime.telemetry.reader import Reader, Telemetry, read_telemetry

__all__ = ["Reader", "Telemetry", "read_telemetry"]
