"""Power, clocks, heat and throttling of this machine.

Use `read_telemetry()` for one reading, a `Reader` for many.
"""

from finedge.runtime.telemetry.reader import Reader, Telemetry, read_telemetry

__all__ = ["Reader", "Telemetry", "read_telemetry"]
