"""How unlikely it is that a box is the next one of a track: by place, size and looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.find.box import Box
from finedge.runtime.track.colours import similarity
from finedge.runtime.track.kinematics import Kinematics

LIMIT = 14.0  # a pair that costs more is never made
PLACE = 14.0  # neither is one whose place alone costs more than this
SPREAD = 0.3  # standard deviation of the place, in sizes of the thing, plus
SPREAD_PER_S = 1.3  # so much for each second since it was seen alone
MAX_SPREAD = 1.6
IN_SHARED = 1.0  # the cost of any place in a shared box
LOOKS = 0.02  # 1 - similarity of colours that costs 1
MAX_LOOKS = 8.0
MAX_SIZE = 10.0
ANSWERS = 6.0  # the cost of probabilities that have nothing in common


@dataclass(frozen=True)
class Looks:
    """What a thing looks like: its colours [3, bins], and its probabilities [classes]."""

    colours: NDArray[np.float32]
    p: NDArray[np.floating]


def cost(
    state: Kinematics, looks: Looks, *, box: Box, box_looks: Looks, shared: Box | None = None
) -> float:
    """Return the cost of a pair, 0 or more; infinite where they are too far apart.

    `shared` is the box that the track shared with others a moment ago: it may be anywhere in it.
    """
    place = _place(state, box)
    if shared is not None:
        place = min(place, IN_SHARED + _outside(state, box, shared))
    if place > PLACE:
        return math.inf
    hidden_s = min(state.at - state.own_at, 1.0)
    return place + _size(state, box) + (1 + hidden_s) * looks_cost(looks, box_looks)


def looks_cost(one: Looks, other: Looks) -> float:
    """Return how little two things look alike, 0 or more."""
    colours = (1 - similarity(one.colours, other.colours)) / LOOKS
    answers = ANSWERS * (1 - similarity(one.p, other.p))
    return min(colours, MAX_LOOKS) + answers


def _outside(state: Kinematics, box: Box, shared: Box) -> float:
    """Return the cost of the way from the edge of a shared box to the middle of a box."""
    x, y = box.x + box.w / 2, box.y + box.h / 2
    across = max(shared.x - x, 0.0, x - shared.x - shared.w)
    down = max(shared.y - y, 0.0, y - shared.y - shared.h)
    return (math.hypot(across, down) / (_spread(state) * state.size)) ** 2


def _spread(state: Kinematics) -> float:
    return min(SPREAD + SPREAD_PER_S * (state.at - state.own_at), MAX_SPREAD)


def _place(state: Kinematics, box: Box) -> float:
    apart = math.hypot(box.x + box.w / 2 - state.x, box.y + box.h / 2 - state.y)
    return (apart / (_spread(state) * state.size)) ** 2


def _size(state: Kinematics, box: Box) -> float:
    # A thing that comes into the frame or passes a post changes its size fast: it costs little.
    return min((math.log(box.area / state.area) / 0.8) ** 2, MAX_SIZE)
