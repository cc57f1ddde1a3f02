"""The coarser answer of a visit: the deepest sure group of the bundle's label tree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.runtime.events.event import Name
from finedge.runtime.events.visits import Coarser


def open_coarser(bundle: Bundle, *, variant: str) -> Coarser | None:
    """Return what names a group for probabilities, float [classes]; None without a label tree.

    Raises:
        BundleError: the record of `finedge calibrate` is damaged.
    """
    coarser = bundle.coarser(variant)
    if coarser is None:
        return None

    def name(p: NDArray[np.floating]) -> Name | None:
        answer = coarser(p)
        return None if answer is None else Name(answer[0], answer[1])

    return name
