"""The time of each phase of a training step."""

from __future__ import annotations

import time
from typing import Any, Literal

import torch

Phase = Literal["data", "forward", "backward", "optimizer", "rest"]
PHASES: tuple[Phase, ...] = ("data", "forward", "backward", "optimizer", "rest")


class StepClock:
    """Adds up the time of each phase of a step.

    data         waiting for images
    forward      copy to the device, normalising, teacher, model, loss
    backward     gradients
    optimizer    update and moving average
    rest         the loop itself

    A lap waits for the GPU, so that its work counts in the phase that started it: a profiled run is
    slightly slower. A clock that is off does nothing, and its `report` is empty.
    """

    def __init__(self, device: torch.device, *, on: bool) -> None:
        self.on = on
        self._cuda = device if device.type == "cuda" else None
        self.start()

    def start(self) -> None:
        """Set all times to 0; the first phase begins now."""
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._last = time.perf_counter()

    def lap(self, phase: Phase) -> None:
        """Count the time since the last lap for `phase`."""
        if not self.on:
            return
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        now = time.perf_counter()
        self._seconds[phase] += now - self._last
        self._last = now

    def report(self, steps: int) -> dict[str, Any]:
        """Return {"profile": {"steps", "step_ms", phase: {"ms", "share"}}}.

        Times are means over `steps` steps in milliseconds; a share is a part of 1.
        """
        if not self.on:
            return {}
        total = sum(self._seconds.values())
        phases = {
            phase: {"ms": round(1e3 * s / steps, 3), "share": round(s / total, 4)}
            for phase, s in self._seconds.items()
        }
        return {"profile": {"steps": steps, "step_ms": round(1e3 * total / steps, 3), **phases}}
