"""Perturbations depend on seed, name and index only, are mild, and clutter spares the middle."""

import cv2
import numpy as np
import pytest

from finedge.measure import accuracy_record
from finedge.synthetic import perturb
from finedge.synthetic.perturb import CLEAR, PERTURBATIONS, robustness

SHAPES = [(120, 160), (160, 120), (33, 200), (1, 1)]


@pytest.fixture
def frame():
    """A smooth picture, uint8 [120, 160, 3]."""
    knots = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    return cv2.resize(knots, (160, 120), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_frame_keeps_shape_and_type_and_the_callers_pixels(name, shape):
    frame = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    before = frame.copy()
    made = perturb.perturb(frame, name, index=0)
    assert (made.shape, made.dtype, made.flags.c_contiguous) == (frame.shape, np.uint8, True)
    assert np.array_equal(frame, before)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_same_seed_and_index_draw_the_same_and_others_do_not(frame, name):
    made = [
        perturb.perturb(frame, name, index=i, seed=s) for i, s in ((3, 0), (3, 0), (4, 0), (3, 1))
    ]
    assert np.array_equal(made[0], made[1])
    assert len({m.tobytes() for m in (*made, frame)}) == 4


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_perturbation_says_how_strong_it_is(name):
    assert PERTURBATIONS[name].__name__ == name
    assert any(c.isdigit() for c in PERTURBATIONS[name].__doc__)


@pytest.mark.parametrize("name", ["rotation", "scale", "perspective", "deformation"])
def test_a_warp_shows_nothing_but_the_frames_own_pixels(frame, name):
    narrow = (frame // 8 + 100).astype(np.uint8)
    for index in range(10):
        made = perturb.perturb(narrow, name, index=index)
        assert narrow.min() <= made.min()
        assert made.max() <= narrow.max()


def moved(name, index):
    """Where a warp takes a dot 30 pixels right of the centre: (x, y) from the centre."""
    frame = np.zeros((201, 201, 3), np.uint8)
    cv2.circle(frame, (130, 100), 5, (255, 255, 255), -1)
    found = np.argwhere(perturb.perturb(frame, name, index=index)[..., 0] > 127)
    return found.mean(axis=0)[::-1] - 100


def test_rotation_turns_by_15_to_30_degrees_to_both_sides():
    angles = [float(np.degrees(np.arctan2(*moved("rotation", index)[::-1]))) for index in range(20)]
    assert {np.sign(a) for a in angles} == {-1, 1}
    assert all(14 <= abs(a) <= 31 for a in angles)


def test_scale_shrinks_and_enlarges():
    factors = [moved("scale", index)[0] / 30 for index in range(20)]
    assert all(0.58 < f < 0.82 or 1.13 < f < 1.32 for f in factors)
    assert min(factors) < 1 < max(factors)


def test_clutter_covers_much_of_the_border_and_nothing_of_the_middle():
    frame = np.full((200, 300, 3), 7, np.uint8)
    covered = []
    for index in range(30):
        changed = (perturb.perturb(frame, "clutter", index=index) != 7).any(axis=2)
        half = round(CLEAR * 200)
        assert not changed[100 - half + 1 : 100 + half - 1, 150 - half + 1 : 150 + half - 1].any()
        covered.append(changed[:, 50:250].mean())
    assert 0.15 < np.mean(covered) < 0.5


def test_deformation_does_not_fold(frame):
    ramp = np.broadcast_to(
        np.linspace(0, 255, 160).astype(np.uint8)[None, :, None], (120, 160, 3)
    ).copy()
    for index in range(20):
        made = perturb.perturb(ramp, "deformation", index=index)[..., 0].astype(int)
        assert (np.diff(made[:, 12:-12], axis=1) >= -1).all()


def test_the_drop_is_what_was_lost():
    found = robustness(
        accuracy_record(8, 9, 10),
        {"rotation": accuracy_record(5, 9, 10), "clutter": accuracy_record(9, 10, 10)},
    )
    assert found["clean"] == accuracy_record(8, 9, 10)
    assert {name: row["drop"] for name, row in found["robustness"].items()} == {
        "rotation": 0.3,
        "clutter": -0.1,
    }
    assert {"top1", "top5", "n", "wilson95", "drop"} == set(found["robustness"]["rotation"])
