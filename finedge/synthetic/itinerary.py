"""Where each bird of a scene is at a time: when it comes, where it flies and sits, when it leaves.

A bird flies between spots. Each of the `birds` places of a scene has spots of its own, so that no
two birds sit on the same one, while their flights cross.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

COLUMNS, ROWS = (0.14, 0.36, 0.64, 0.86), (0.24, 0.5, 0.76)  # of the spots, in fractions
OUT = 0.25  # how far outside the frame a bird starts, as a fraction
STAY_S = (5.0, 12.0)
SIT_S = (1.2, 3.5)
FLIGHT_S = (0.5, 1.2)
AWAY_S = (1.0, 5.0)  # until another bird comes
RETURN_S = (5.0, 8.0)  # until the same bird comes again
BLINK_S = (0.4, 1.2)  # how long a bird leaves the frame within a stay
RETURNS, BLINKS = 0.3, 0.15  # how often


@dataclass(frozen=True)
class Waypoint:
    """The bird is at (x, y), fractions of the frame, from `start` to `end` seconds."""

    start: float
    end: float
    x: float
    y: float


@dataclass(frozen=True)
class Place:
    """Where a bird is: its middle in fractions of the frame, and whether it looks to the left.

    `seconds` and `swing` give its pose.
    """

    x: float
    y: float
    left: bool
    seconds: float
    swing: int


@dataclass(frozen=True)
class Stay:
    """One stay of a bird: its waypoints in the order of time. It flies between them."""

    number: int
    individual: int
    points: tuple[Waypoint, ...]

    @property
    def start(self) -> float:
        """When it is still outside the frame, in s."""
        return self.points[0].end

    @property
    def end(self) -> float:
        """When it is outside the frame again, in s."""
        return self.points[-1].start

    def at(self, seconds: float) -> Place:
        """Return where the bird is; it flies with a smooth start and end."""
        after = next(i for i, p in enumerate(self.points) if seconds < p.end)
        point, before = self.points[after], self.points[max(0, after - 1)]
        if seconds < point.start:
            t = (seconds - before.end) / (point.start - before.end)
            t = t * t * (3 - 2 * t)
            x, y = before.x + (point.x - before.x) * t, before.y + (point.y - before.y) * t
        else:
            x, y = point.x, point.y
        return Place(x, y, point.x < before.x, seconds, self.individual)


@dataclass
class Itinerary:
    """The stays of all birds, made as far as they are asked for."""

    birds: int
    seed: int
    _stays: list[list[Stay]] = field(init=False)
    _rngs: list[Generator] = field(init=False)

    def __post_init__(self) -> None:
        self._rngs = [np.random.default_rng([self.seed, 31, k]) for k in range(self.birds)]
        self._stays = [[] for _ in range(self.birds)]

    def at(self, seconds: float) -> list[tuple[Stay, Place]]:
        """Return the stays that last at a time >= 0, with the bird's place."""
        present = []
        for slot in range(self.birds):
            self._reach(slot, seconds)
            stays = [stay for stay in self._stays[slot] if stay.start <= seconds < stay.end]
            present += [(stay, stay.at(seconds)) for stay in stays]
        return present

    def _reach(self, slot: int, seconds: float) -> None:
        stays = self._stays[slot]
        while not stays or stays[-1].end <= seconds:
            stays.append(self._next(slot, stays))

    def _next(self, slot: int, stays: list[Stay]) -> Stay:
        rng = self._rngs[slot]
        again = bool(stays) and rng.uniform() < RETURNS
        away_s = rng.uniform(*(RETURN_S if again else AWAY_S))
        start = away_s + (stays[-1].end if stays else 0.0)
        number = slot + self.birds * len(stays)
        individual = stays[-1].individual if again else number
        return Stay(number, individual, tuple(self._points(slot, rng, start)))

    def _points(self, slot: int, rng: Generator, start: float) -> list[Waypoint]:
        entry = _outside(rng)
        points, last = [Waypoint(start, start, *entry)], start + rng.uniform(*STAY_S)
        blinks = rng.uniform() < BLINKS
        while points[-1].end < last:
            if blinks and len(points) == 3:
                points.append(_after(points[-1], rng, at=_outside(rng), sit_s=BLINK_S))
            points.append(_after(points[-1], rng, at=self._spot(slot, rng), sit_s=SIT_S))
        end = _after(points[-1], rng, at=_outside(rng), sit_s=(0.01, 0.02))
        return [*points, end]

    def _spot(self, slot: int, rng: Generator) -> tuple[float, float]:
        spots = [
            (x, y)
            for i, x in enumerate(COLUMNS)
            for j, y in enumerate(ROWS)
            if (i + j) % self.birds == slot
        ]
        x, y = spots[rng.integers(len(spots))] if spots else (0.25, 0.5)
        return x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.03, 0.03)


def _outside(rng: Generator) -> tuple[float, float]:
    left = bool(rng.integers(2))
    return (-OUT if left else 1 + OUT), rng.uniform(0.2, 0.8)


def _after(
    point: Waypoint, rng: Generator, *, at: tuple[float, float], sit_s: tuple[float, float]
) -> Waypoint:
    start = point.end + rng.uniform(*FLIGHT_S)
    return Waypoint(start, start + rng.uniform(*sit_s), *at)
