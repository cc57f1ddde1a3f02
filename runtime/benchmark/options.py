"""What a benchmark is asked for: the options of `finedge benchmark`, checked as they are read."""

from __future__ import annotations

from dataclasses import dataclass

from finedge.bundle import VARIANTS
from finedge.errors import UsageError
from finedge.measure import MIN_QUERIES
from finedge.options import comma_list
from finedge.runtime.benchmark.modes import Mode, parse_modes
from finedge.runtime.benchmark.schedule import Schedule, schedule


@dataclass(frozen=True)
class MeasurementOptions:
    """What is run, and for how long.

    Attributes:
        variants: fp32, fp16, int8 in a comma list; default: all that each bundle holds and that
            are of use on the backend (no fp16 on a CPU).
        mode: single-stream, offline, camera, or several in a comma list. Camera mode measures how
            old frames are when they are answered.
        duration: time of measuring for each row, e.g. 10s, 500ms, 2m.
        batch: frames of an offline query.
        backend: a backend's name, or auto for the first that runs on this machine.
        threads: CPU threads; default: the physical cores that this process may use.
        early_exit: measure each bundle with segments a second time, with early exits, in the same
            run. Its rows then have `early_exit`.
    """

    variants: str = ""
    mode: str = "single-stream"
    duration: str = "10s"
    batch: int = 8
    backend: str = "auto"
    threads: int | None = None
    early_exit: bool = False

    def __post_init__(self) -> None:
        _ = self.chosen_variants, self.modes, self.schedule  # a wrong one raises a UsageError

    @property
    def chosen_variants(self) -> tuple[str, ...]:
        """The variants of the list; empty: those that are of use on the backend."""
        return comma_list(self.variants, kind="variant", known=VARIANTS)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes of the list."""
        return parse_modes(self.mode, batch=self.batch)

    @property
    def schedule(self) -> Schedule:
        """The blocks that the duration is cut into."""
        return schedule(self.duration)


@dataclass(frozen=True)
class FrameOptions:
    """The frames that are classified.

    Attributes:
        images: how many frames to rotate.
        accuracy_images: measure accuracy on this many images only; default: the whole split.
        source: for camera mode: a live source as `finedge classify` takes it; default: the frames
            are replayed.
        fps: for camera mode: frames a second; default: 30 for a replay, else what the source gives.
    """

    images: int = 256
    accuracy_images: int | None = None
    source: str = ""
    fps: float | None = None

    def __post_init__(self) -> None:
        for option, number in (("images", self.images), ("accuracy-images", self.accuracy_images)):
            if number is not None and number < 1:
                raise UsageError(f"--{option} {number}", expected="at least 1")


@dataclass(frozen=True)
class Claims:
    """What the numbers have to support; a row that does not is INVALID.

    Attributes:
        gate: the lowest top-1 accuracy, a share from 0 to 1.
        percentile: percentiles of the latency, e.g. 99 or 90,99. Each needs a number of queries.
        require_faster: exit 1 where INT8 is not faster end to end than the float variants, beyond
            noise. It needs 8 blocks: 5.6 s.
    """

    gate: float | None = None
    percentile: str = ""
    require_faster: bool = False

    def __post_init__(self) -> None:
        if self.gate is not None and not 0 <= self.gate <= 1:
            raise UsageError(
                f"--gate {self.gate:g}", expected="a top-1 share from 0 to 1, e.g. 0.85"
            )
        if any(percentile not in MIN_QUERIES for percentile in self.percentiles):
            percentiles = ", ".join(f"{percentile:g}" for percentile in MIN_QUERIES)
            raise UsageError(f"--percentile {self.percentile}", expected=f"some of {percentiles}")

    @property
    def percentiles(self) -> tuple[float, ...]:
        """The percentiles of the list; `p99` stands for 99."""
        names = comma_list(self.percentile, kind="percentile")
        try:
            return tuple(float(name.removeprefix("p")) for name in names)
        except ValueError:
            raise UsageError(
                f"--percentile {self.percentile}", expected="numbers, e.g. 90,99"
            ) from None
