from __future__ import annotations

import numpy as np
import pytest

from finedge.errors import UsageError
from finedge.runtime.find.box import Box
from finedge.runtime.find.crops import crop, square
from finedge.runtime.find.merge import merged
from finedge.runtime.find.motion import MotionFinder
from finedge.runtime.find.options import FindOptions, open_finders
from finedge.runtime.find.zones import areas_of, parse_mask, parse_zone

LEFT, RIGHT = Box(10, 40, 20, 20), Box(150, 40, 20, 20)


def kept(zones: list[str], masks: list[str], camera: int = 0) -> list[str]:
    areas = areas_of(zones, masks, camera=camera)
    return [box.zone for box in areas.kept([LEFT, RIGHT], height=100, width=200)]


def test_a_zone_keeps_what_has_its_middle_in_it() -> None:
    assert kept(["feeder=0,0,100,0,100,100,0,100"], []) == ["feeder"]
    assert kept(["feeder=0,0,0.5,0,0.5,1,0,1"], []) == ["feeder"]  # the same as fractions
    assert kept(["a=0,0,0.5,0,0.5,1,0,1", "b=0,0,1,0,1,1,0,1"], []) == ["a", "b"]
    assert kept([], []) == ["", ""]


def test_a_mask_drops_and_other_cameras_areas_do_not_count() -> None:
    half = "0,0,0.5,0,0.5,1,0,1"
    assert kept([], [half]) == [""]
    assert kept([], [f"1:{half}"]) == ["", ""]
    assert kept([f"1:bath={half}"], [], camera=1) == ["bath"]


BAD_ZONES = """
0,0,1,1,0,1  a=  =0,0,1,0,1,1  a=0,0,1,1  a=0,0,1,0,1  a=0,0,x,0,1,1  a=0,0,-1,0,1,1
a=0,0,nan,0,1,1  a=0,0,1,1,2,2  x:a=0,0,1,0,1,1  a=0,0,1e39,0,1e39,1e39  a:b=0,0,1,0,1,1
a=b=0,0,1,0,1,1  -1:a=0,0,1,0,1,1  99999999999999999999:a=0,0,1,0,1,1  a=0,0,1,1,0,1,1,0
a=0,0,0.9,1,0.1,1,1,0
"""


@pytest.mark.parametrize("text", BAD_ZONES.split())
def test_a_zone_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--zone"):
        parse_zone(text)


def test_several_polygons_may_have_one_name() -> None:
    assert kept(["a=0,0,0.2,0,0.2,1,0,1", "a=0.7,0,1,0,1,1,0.7,1"], []) == ["a", "a"]


def test_an_area_stays_where_it_is_when_the_resolution_changes() -> None:
    (finder,) = open_finders(
        FindOptions("motion", zone=("a=100,0,200,0,200,100",), mask=("0,0,100,0,100,100,0,100",)),
        cameras=1,
    )
    finder(np.zeros((100, 200, 3), np.uint8), seconds=0.0)
    for height, width in ((50, 100), (200, 400)):
        finder(np.zeros((height, width, 3), np.uint8), seconds=1.0)
        middle = Box(width * 3 // 4, height // 8, 2, 2)
        assert [box.zone for box in finder.areas.kept([middle], height=height, width=width)] == [
            "a"
        ]
        assert isinstance(finder.finder, MotionFinder)
        assert finder.finder.ignored is not None
        assert (finder.finder.ignored[:, : width // 2 - 1] == 255).all()


def test_a_mask_of_another_form_is_refused() -> None:
    with pytest.raises(UsageError, match="--mask a=0,0,1,0,1,1"):
        parse_mask("a=0,0,1,0,1,1")


def test_a_zone_outside_the_frame_or_the_run_is_refused() -> None:
    options = FindOptions("motion", zone=("a=0,0,300,0,300,90",))
    (finder,) = open_finders(options, cameras=1)
    with pytest.raises(UsageError, match="for a frame of 200x100"):
        finder(np.zeros((100, 200, 3), np.uint8), seconds=0.0)
    with pytest.raises(UsageError, match="0 to 0 in this run"):
        open_finders(FindOptions("motion", mask=("1:0,0,1,0,1,1",)), cameras=1)
    with pytest.raises(UsageError, match="without --find"):
        FindOptions(zone=("a=0,0,1,0,1,1",))


@pytest.mark.parametrize(
    ("box", "part"),
    [
        (Box(100, 40, 20, 10), Box(97, 32, 26, 26)),
        (Box(0, 0, 20, 20), Box(0, 0, 26, 26)),  # shifted into the frame
        (Box(180, 80, 20, 20), Box(174, 74, 26, 26)),
        (Box(0, 0, 95, 95), Box(0, 0, 100, 100)),  # no larger than the frame's shorter side
    ],
)
def test_a_crop_is_a_square_with_a_margin_in_the_frame(box: Box, part: Box) -> None:
    assert square(box, height=100, width=200) == part
    frame = np.arange(100 * 200 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 200, 3)
    expected = frame[part.y : part.y + part.h, part.x : part.x + part.w]
    assert np.array_equal(crop(frame, box), expected)


def test_a_box_larger_than_the_frame_is_padded() -> None:
    frame = np.full((100, 200, 3), 9, np.uint8)
    pixels = crop(frame, Box(10, 0, 180, 100))
    assert pixels.shape == (180, 180, 3)
    assert (pixels == 9).all()


def test_near_boxes_become_one() -> None:
    parts = [Box(0, 0, 10, 10), Box(40, 0, 10, 10), Box(12, 0, 10, 10), Box(24, 0, 14, 30)]
    assert merged(parts, gap=3) == [Box(0, 0, 50, 30)]
    assert len(merged(parts, gap=1)) == 4
