"""What each step of a calibration costs: the record tells users where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class StepTimes:
    """Seconds by step, in running order: wall time, and CPU time of this process.

    Examples:
        >>> times = StepTimes()
        >>> with times.step("ranges"):
        ...     pass
        >>> times.seconds["ranges"]
        {'wall': 0.0, 'cpu': 0.0}
    """

    seconds: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add what runs inside to a step. Steps do not contain each other."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            before = self.seconds.get(name, {})
            self.seconds[name] = {
                clock: round(before.get(clock, 0.0) + s, 2) for clock, s in spent.items()
            }
