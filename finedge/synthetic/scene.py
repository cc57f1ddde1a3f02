"""Whole pictures: one image of a species, and an endless scene in which birds come and go."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator

from finedge.synthetic.backdrop import Image, Light, backdrop, clutter, feathered, over, perch
from finedge.synthetic.bird import Plumage, Pose, draw_bird
from finedge.synthetic.species import SPECIES, Species

WIDTH, HEIGHT = 640, 480  # of the moving scene
STAY = 90  # frames a bird stays: three seconds at 30 frames a second
_CAST = SPECIES[:12]  # what the default data set teaches


def render_image(species: Species, rng: Generator, *, size: int) -> Image:
    """Return one picture of `species`, uint8 [size, size, 3] RGB.

    Everything but the marks is drawn from `rng`, in an order that all species share: with equal
    generators two species differ only where their parts differ.
    """
    pose, plumage, light = sample_pose(rng), sample_plumage(rng), Light.sample(rng)
    image = backdrop(rng, width=size, height=size)
    image = _with_bird(image, species, pose=pose, plumage=plumage, rng=rng)
    clutter(image, rng)
    return light(image)


def sample_pose(rng: Generator) -> Pose:
    """Draw a pose: 0.35 to 0.9 of the frame, larger ones more often, mostly inside it."""
    span = 0.35 + 0.55 * rng.uniform() ** 0.35
    slack = 0.03 + (0.9 - span) / 2
    x, y = 0.5 + rng.uniform(-slack, slack, 2)
    return Pose(
        centre=(float(x), float(y)),
        span=float(span),
        mirror=bool(rng.integers(2)),
        roll=float(np.clip(rng.normal(0, 9), -30, 30)),
        head=float(rng.uniform(-22, 18)),
        tail=float(rng.uniform(-16, 22)),
        squeeze=float(rng.uniform(0.72, 1.0)),
        shear=float(rng.uniform(-0.22, 0.22)),
        tilt=(float(rng.uniform(-0.12, 0.12)), float(rng.uniform(-0.12, 0.12))),
    )


def sample_plumage(rng: Generator) -> Plumage:
    """Draw the colours of an individual: one hue, a paler belly, a darker wing."""
    hue, saturation, value = rng.uniform(0, 180), rng.uniform(10, 95), rng.uniform(105, 215)
    tones = [
        (hue, saturation, value),
        (hue + rng.normal(0, 12), saturation * rng.uniform(0.3, 0.9), value + rng.uniform(20, 55)),
        (
            hue + rng.normal(0, 8),
            saturation * rng.uniform(0.6, 1.2),
            value * rng.uniform(0.5, 0.85),
        ),
        (
            hue + rng.normal(0, 8),
            saturation * rng.uniform(0.7, 1.2),
            value * rng.uniform(0.75, 1.1),
        ),
    ]
    hsv = np.array(
        [[(h % 180, np.clip(s, 0, 255), np.clip(v, 0, 255)) for h, s, v in tones]]
    ).astype(np.uint8)
    back, belly, wing, head = (
        tuple(map(int, rgb)) for rgb in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    )
    return Plumage(back, belly, wing, head)  # type: ignore[arg-type]


def moving_scene(index: int, *, seed: int = 0) -> Image:
    """Return frame `index` of a scene, uint8 [480, 640, 3] RGB.

    A bird moves smoothly, and another one comes every `STAY` frames.

    Any frame can be asked for at any time; the same index and seed give the same bytes.
    """
    visit = index // STAY
    rng = np.random.default_rng([seed, 1, visit])
    pose, plumage, species = (
        _pose_at(index, seed=seed),
        sample_plumage(rng),
        visitor(visit, seed=seed),
    )
    image = _with_bird(_stage(seed).copy(), species, pose=pose, plumage=plumage, rng=rng)
    return Light.sample(np.random.default_rng([seed, 21]))(image)


def _with_bird(
    image: Image, species: Species, *, pose: Pose, plumage: Plumage, rng: Generator
) -> Image:
    height, width = image.shape[:2]
    perch(image, rng, at=pose.feet(width=width, height=height))
    layer = draw_bird(species, pose=pose, plumage=plumage, width=width, height=height)
    return over(feathered(layer, rng), image)


def visitor(visit: int, *, seed: int) -> Species:
    """Return the species of a visit: the bird of frames `visit * STAY` and on in `moving_scene`."""
    order: list[int] = np.random.default_rng([seed, 3]).permutation(len(_CAST)).tolist()
    return _CAST[order[visit % len(_CAST)]]


@lru_cache(maxsize=4)
def _stage(seed: int) -> Image:
    return backdrop(np.random.default_rng([seed, 11]), width=WIDTH, height=HEIGHT)


def _pose_at(index: int, *, seed: int) -> Pose:
    """Return a pose whose every part swings at its own slow pace, seconds to tens of seconds."""
    rng = np.random.default_rng([seed, 5])
    phases, paces = rng.uniform(0, 2 * np.pi, 8), rng.uniform(0.006, 0.03, 8)
    x, y, span, roll, head, tail, squeeze, shear = np.sin(phases + paces * index).tolist()
    return Pose(
        centre=(0.5 + 0.12 * x, 0.5 + 0.08 * y),
        span=0.65 + 0.15 * span,
        mirror=bool(seed % 2),
        roll=12 * roll,
        head=15 * head,
        tail=12 * tail,
        squeeze=0.88 + 0.1 * squeeze,
        shear=0.15 * shear,
    )
