"""How unlikely it is that a box is the next one of a track: by place, size and looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.find.box import Box
from finedge.runtime.track.kinematics import Kinematics

LIMIT = 14.0  # a pair that costs more is never made
PLACE = 7.5  # neither is one whose place alone costs more than this
SPREAD = 0.3  # standard deviation of the place, in sizes of the thing, plus
SPREAD_PER_S = 1.3  # so much for each second since it was seen alone
NEW_SPREAD = 0.6  # the same where the velocity is not known yet
MAX_SPREAD = 0.9
LOOKS = 1.3  # weight of the looks
IN_SHARED = 1.0  # the cost of any place in a shared box
SIZE = 0.8  # logarithm of the ratio of areas that costs 1
MAX_SIZE = 20.0
# Weights of lightness, of a and b of CIELAB, and of the answers. A logistic regression on the same
# and on other rendered birds gave 2.4, 4.2, 1.8 and 4.9. At 4.1 it is wrong as often on either.
COLOURS = np.array([2.5, 3.0, 3.0])
ANSWERS = 5.0


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
    weight = LOOKS * (1 + hidden_s)
    return place + _size(state, box) + weight * looks_cost(looks, box_looks)


def looks_cost(one: Looks, other: Looks) -> float:
    """Return how little two things look alike, 0 to 13.5: Hellinger distances, weighted."""
    colours = np.sqrt(np.maximum(0, 1 - np.sqrt(one.colours * other.colours).sum(axis=1)))
    answers = math.sqrt(max(0.0, 1 - float(np.sqrt(one.p * other.p).sum())))
    return float(colours @ COLOURS) + ANSWERS * answers


def _outside(state: Kinematics, box: Box, shared: Box) -> float:
    """Return the cost of the way from the edge of a shared box to the middle of a box."""
    x, y = box.x + box.w / 2, box.y + box.h / 2
    across = max(shared.x - x, 0.0, x - shared.x - shared.w)
    down = max(shared.y - y, 0.0, y - shared.y - shared.h)
    return (math.hypot(across, down) / (_spread(state) * state.size)) ** 2


def _spread(state: Kinematics) -> float:
    passed_s = state.at - state.own_at
    spread = SPREAD if state.is_settled else NEW_SPREAD
    return min(spread + SPREAD_PER_S * passed_s, MAX_SPREAD)


def _place(state: Kinematics, box: Box) -> float:
    apart = math.hypot(box.x + box.w / 2 - state.x, box.y + box.h / 2 - state.y)
    return (apart / (_spread(state) * state.size)) ** 2


def _size(state: Kinematics, box: Box) -> float:
    # A thing that comes into the frame or passes a post changes its size fast: it costs little.
    return min((math.log(box.area / state.area) / SIZE) ** 2, MAX_SIZE)
