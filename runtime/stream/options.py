"""When a run of `finedge classify` ends, and how its answers are decided: options, checked."""

from __future__ import annotations

from dataclasses import dataclass

from finedge.errors import UsageError
from finedge.runtime.stream.decide import MARGIN, Holding, Rules, Smoothing
from finedge.runtime.stream.region import Region
from finedge.runtime.stream.stream import NO_SIGNAL_MS

MAX_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class RunLimits:
    """When a run ends and when a line warns.

    Attributes:
        frames: stop after so many frames; without it, at the end of the sources or at Ctrl-C.
        interval: classify at most one frame of a source in so many seconds. 0 is every frame, or
            as many as the machine can.
        stale_ms: a live frame whose answer is older than this, in ms, has status "stale".
        no_signal_ms: a live source that is silent for this long, in ms, gives a line with status
            "no_signal".
        timeout: a stream or pipeline that is silent for this long, in s, is lost and opened again;
            without it 10 (a pipeline: 5).
    """

    frames: int | None = None
    interval: float = 0.0
    stale_ms: float = 1000.0
    no_signal_ms: float = NO_SIGNAL_MS
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise UsageError(f"--frames {self.frames}", expected="at least 1")
        if not (self.stale_ms > 0 and self.no_signal_ms > 0):  # NaN fails both
            raise UsageError(
                f"--stale-ms {self.stale_ms} --no-signal-ms {self.no_signal_ms}",
                expected="positive numbers of milliseconds",
            )
        if self.timeout is not None and not 0 < self.timeout <= MAX_TIMEOUT_S:
            raise UsageError(
                f"--timeout {self.timeout}",
                expected=f"seconds, more than 0, at most {MAX_TIMEOUT_S:g}",
            )
        if not self.interval >= 0:
            raise UsageError(f"--interval {self.interval}", expected="seconds, 0 or more")

    @property
    def source_options(self) -> dict[str, float]:
        """The options that each source is opened with."""
        return {} if self.timeout is None else {"timeout_s": self.timeout}

    @property
    def quiet_s(self) -> float:
        """For how long, in s, a healthy live source may give no line."""
        return max(self.interval, self.no_signal_ms / 1e3)


@dataclass(frozen=True)
class DecisionOptions:
    """How an answer is made of the model's output for one frame after another.

    All rules are off by default: the lines are then what `evaluate` measured. With `smooth` or
    `hold` a line also has "raw_top", the model's output for this frame alone.

    Attributes:
        smooth: average the probabilities over so many seconds, and start again after a scene
            change; 0 is off. For cameras and video.
        hold: keep a label first until another leads it for so many frames in a row; 0 is off.
        hold_margin: by how much in probability it must lead.
        roi: x,y,w,h of the part of the frame that the model sees, in pixels, or in fractions where
            all are at most 1.
    """

    smooth: float = 0.0
    hold: int = 0
    hold_margin: float = MARGIN
    roi: str | None = None

    def rules(self) -> Rules:
        """Return the rules.

        Raises:
            UsageError: a number that no rule can use.
        """
        return Rules(
            Smoothing(self.smooth) if self.smooth else None,
            Holding(self.hold, margin=self.hold_margin) if self.hold else None,
        )

    def region(self) -> Region | None:
        """Return the region of interest.

        Raises:
            UsageError: `roi` is not a region.
        """
        return None if self.roi is None else Region.parse(self.roi)
