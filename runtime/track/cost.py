"""How unlikely it is that a box is the next one of a thing: by place, size and looks."""

from __future__ import annotations

import math

from finedge.runtime.find.box import Box
from finedge.runtime.track.kinematics import Kinematics
from finedge.runtime.track.looks import Looks, looks_cost

LIMIT = 14.0  # a pair that costs more is never made
PLACE = 7.5  # neither is one whose place alone costs more than this
SPREAD = 0.3  # standard deviation of the place, in sizes of the thing, plus
SPREAD_PER_S = 1.3  # so much for each second since it was seen
NEW_SPREAD = 0.6  # the same where the velocity is not known yet
MAX_SPREAD = 0.9
LOOKS = 1.3  # weight of the looks, and so much more for each second since it was seen
SIZE = 0.8  # logarithm of the ratio of areas that costs 1
MAX_SIZE = 20.0


def cost(state: Kinematics, looks: Looks, *, box: Box, box_looks: Looks) -> float:
    """Return the cost of a pair, 0 or more; infinite where they are too far apart."""
    place = place_cost(state, box)
    if place > PLACE:
        return math.inf
    weight = LOOKS * (1 + min(state.at - state.own_at, 1.0))
    return place + _size(state, box) + weight * looks_cost(looks, box_looks)


def place_cost(state: Kinematics, box: Box) -> float:
    """Return the squared distance from the predicted place, in standard deviations."""
    apart = math.hypot(box.x + box.w / 2 - state.x, box.y + box.h / 2 - state.y)
    spread = SPREAD if state.is_settled else NEW_SPREAD
    spread = min(spread + SPREAD_PER_S * (state.at - state.own_at), MAX_SPREAD)
    return (apart / (spread * state.size)) ** 2


def _size(state: Kinematics, box: Box) -> float:
    # A thing that comes into the frame or passes a post changes its size fast: it costs little.
    return min((math.log(box.area / state.area) / SIZE) ** 2, MAX_SIZE)
