"""The species: pairs of birds that share everything but one small part."""

from __future__ import annotations

from dataclasses import dataclass, replace

Colour = tuple[int, int, int]  # RGB, 0..255

HORN: Colour = (92, 82, 76)
YELLOW: Colour = (238, 186, 40)
RED: Colour = (206, 52, 40)
PALE: Colour = (244, 240, 228)
DARK: Colour = (34, 30, 32)
SLATE: Colour = (84, 84, 92)


@dataclass(frozen=True)
class Species:
    """The parts that distinguish a species; lengths in bird units (a head is 0.4 wide).

    Plumage, pose, light and scene are drawn for each image, from one distribution for all species.

    Attributes:
        bill_length: From the head's edge to the tip.
        bill_depth: Height at the base.
        bill_curve: How far the tip hangs below a straight bill.
        cap, throat: Colour of a patch on the crown or under the bill, None for plumage.
        eye_ring, brow, eye_line: a pale ring around, a pale stroke over, a dark stroke through
            the eye.
        wing_bars: Pale bars across the wing, 0 to 2.
        breast: Marks on the breast: "plain", "spots" or "streaks".
        tail_length: Beyond the rump.
        tail_fork: Depth of the notch as a fraction of the tail's length.
        tail_band: A dark band near the end of the tail.
    """

    name: str
    bill_length: float = 0.17
    bill_depth: float = 0.11
    bill_curve: float = 0.0
    bill: Colour = HORN
    legs: Colour = HORN
    cap: Colour | None = None
    throat: Colour | None = None
    eye_ring: bool = False
    brow: bool = False
    eye_line: bool = False
    wing_bars: int = 0
    breast: str = "plain"
    tail_length: float = 0.42
    tail_fork: float = 0.1
    tail_band: bool = False


_FINCH = Species("finch", bill_length=0.17, bill_depth=0.19, bill=RED, tail_length=0.36)
_WARBLER = Species("warbler", bill_length=0.18, bill_depth=0.06)
_THRUSH = Species("thrush", bill_length=0.21, bill_depth=0.09)
_CREEPER = Species(
    "creeper", bill_length=0.36, bill_depth=0.11, bill_curve=0.05, bill=YELLOW, tail_length=0.34
)
_MARTIN = Species("martin", bill_length=0.09, bill_depth=0.08, throat=PALE, tail_length=0.56)
_BUNTING = Species("bunting", bill_length=0.14, bill_depth=0.12, tail_length=0.46)

# Neighbours (0 and 1, 2 and 3, ...) differ in one part, or in a mark on one part. So the
# first N species are whole pairs for any even N.
SPECIES: tuple[Species, ...] = (
    replace(_FINCH, name="dusky-finch"),
    replace(_FINCH, name="ringed-finch", eye_ring=True),
    replace(_WARBLER, name="single-barred-warbler", wing_bars=1),
    replace(_WARBLER, name="double-barred-warbler", wing_bars=2),
    replace(_THRUSH, name="spotted-thrush", breast="spots"),
    replace(_THRUSH, name="streaked-thrush", breast="streaks"),
    replace(_CREEPER, name="straight-billed-creeper", bill_curve=0.0),
    replace(_CREEPER, name="curve-billed-creeper", bill_curve=0.22),
    replace(_MARTIN, name="square-tailed-martin", tail_fork=0.0),
    replace(_MARTIN, name="fork-tailed-martin", tail_fork=0.75),
    replace(_BUNTING, name="red-capped-bunting", cap=RED),
    replace(_BUNTING, name="gold-capped-bunting", cap=YELLOW),
    replace(_FINCH, name="yellow-billed-finch", bill=YELLOW),
    replace(_FINCH, name="dark-billed-finch", bill=DARK),
    replace(_WARBLER, name="browed-warbler", brow=True),
    replace(_WARBLER, name="masked-warbler", eye_line=True),
    replace(_THRUSH, name="short-billed-thrush", breast="spots", bill_length=0.12),
    replace(_THRUSH, name="long-billed-thrush", breast="spots", bill_length=0.32),
    replace(_CREEPER, name="white-throated-creeper", throat=PALE),
    replace(_CREEPER, name="dark-throated-creeper", throat=DARK),
    replace(_MARTIN, name="banded-martin", tail_band=True),
    replace(_MARTIN, name="barred-martin", wing_bars=1),
    replace(_BUNTING, name="pale-legged-bunting", legs=YELLOW),
    replace(_BUNTING, name="dark-legged-bunting", legs=DARK),
)
