from __future__ import annotations

import numpy as np
import pytest

from finedge.errors import UsageError
from finedge.runtime.stream.region import Region


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,0,1,1", (0, 0, 200, 100)),
        ("0.25,0,0.5,1", (50, 0, 100, 100)),
        ("10,20,30,40", (10, 20, 30, 40)),
        ("0.9,0.9,0.1,0.1", (180, 90, 20, 10)),
    ],
)
def test_a_region_in_pixels_or_fractions_is_pixels_of_the_frame(
    text: str, expected: tuple[int, int, int, int]
) -> None:
    assert Region.parse(text).pixels(100, 200) == expected


def test_the_crop_is_that_part_of_the_picture() -> None:
    image = np.arange(100 * 200 * 3).reshape(100, 200, 3).astype(np.uint8)
    np.testing.assert_array_equal(Region.parse("10,20,30,40").crop(image), image[20:60, 10:40])


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "-1,0,1,1", "0,0,0,1", "0,0,nan,1", "0,0,inf,5"]
)
def test_what_is_no_region_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--roi"):
        Region.parse(text)


@pytest.mark.parametrize("text", ["150,0,51,10", "0,95,10,6", "0.5,0,0.6,1", "0,0,0.001,1"])
def test_a_region_that_the_frame_does_not_hold_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="200x100"):
        Region.parse(text).crop(np.zeros((100, 200, 3), np.uint8))
