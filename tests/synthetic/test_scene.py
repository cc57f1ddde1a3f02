from itertools import pairwise

import numpy as np
import pytest

from finedge.synthetic.scene import STAY, moving_scene, render_image, visitor
from finedge.synthetic.species import SPECIES

PAIRS = [(SPECIES[i], SPECIES[i + 1]) for i in range(0, len(SPECIES), 2)]
pairs = pytest.mark.parametrize(
    ("one", "other"), PAIRS, ids=[f"{a.name}--{b.name}" for a, b in PAIRS]
)


def picture(species, seed, size=224):
    return render_image(species, np.random.default_rng(seed), size=size)


def changed(one, other, seed):
    """Return where the pictures of two species drawn with equal generators differ: bool [H, W]."""
    return (picture(one, seed) != picture(other, seed)).any(axis=2)


def differing_traits(one, other):
    return [
        f for f in one.__dataclass_fields__ if f != "name" and getattr(one, f) != getattr(other, f)
    ]


def test_names_are_unique_and_fit_a_folder():
    names = [s.name for s in SPECIES]
    assert len(set(names)) == len(names)
    assert all(n.replace("-", "").isalpha() and n.islower() for n in names)


def test_no_two_species_share_all_their_traits():
    for i, one in enumerate(SPECIES):
        for other in SPECIES[i + 1 :]:
            assert differing_traits(one, other), f"{one.name} is {other.name}"


@pairs
def test_a_pair_differs_by_a_small_local_part(one, other):
    shares = [changed(one, other, seed).mean() for seed in range(6)]
    assert 0 < np.median(shares) < 0.05
    assert max(shares) < 0.12


@pytest.mark.parametrize("species", SPECIES, ids=lambda s: s.name)
def test_the_same_generator_gives_the_same_picture(species):
    image = picture(species, 3, size=96)
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, picture(species, 3, size=96))
    assert (image != picture(species, 4, size=96)).mean() > 0.5


@pytest.mark.parametrize("size", [32, 75, 512])
def test_any_size_can_be_rendered(size):
    assert picture(SPECIES[0], 0, size=size).shape == (size, size, 3)


def test_the_species_changes_only_between_visits():
    labels = [visitor(i // STAY, seed=5).name for i in range(4 * STAY)]
    changes = [i for i in range(1, len(labels)) if labels[i] != labels[i - 1]]
    assert changes == [STAY, 2 * STAY, 3 * STAY]
    assert set(labels) <= {s.name for s in SPECIES}


def test_the_bird_moves_smoothly_and_does_move():
    frames = [moving_scene(i, seed=1).astype(int) for i in (10, 11, 12, 70)]
    steps = [np.abs(a - b).mean() for a, b in pairwise(frames)]
    assert 0 < steps[0] < 3
    assert 0 < steps[1] < 3
    assert steps[2] > 2 * max(steps[:2])


@pytest.mark.parametrize("index", [0, 89, 90, 100_000])
def test_a_frame_depends_on_its_index_and_seed_alone(index):
    frame = moving_scene(index, seed=2)
    assert frame.shape == (480, 640, 3)
    assert frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, moving_scene(index, seed=2))
    assert (frame != moving_scene(index, seed=3)).any()
