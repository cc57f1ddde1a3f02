"""A scene with several birds that come, cross, pass a tree trunk and leave, and its truth.

Trackers are measured against it. Any frame can be asked for at any time: the same index, rate, size
and seed give the same bytes, and `truth` says what is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.synthetic.backdrop import Image, Light, backdrop, feathered, over
from finedge.synthetic.bird import Plumage, Pose, draw_bird
from finedge.synthetic.itinerary import Itinerary, Place, Stay
from finedge.synthetic.pen import Pen
from finedge.synthetic.scene import sample_plumage
from finedge.synthetic.species import SPECIES, Species

TRUNK = (0.465, 0.535)  # its left and right, as fractions of the width
_MARGIN = 16  # pixels around a bird that the lens blurs
_CAST = SPECIES[:12]  # what the default data set teaches


@dataclass(frozen=True)
class SceneBird:
    """A bird in a frame.

    Attributes:
        box: x, y, w, h of its pixels in the frame, without those that the trunk hides.
        species: its name.
        individual: the same number each time this bird comes.
        visit: the number of its stay, unique in the scene.
        seen: the share of the bird that shows, in (0, 1].
    """

    box: tuple[int, int, int, int]
    species: str
    individual: int
    visit: int
    seen: float


@dataclass(frozen=True)
class _Layer:
    """One bird's pixels, premultiplied RGBA [h, w, 4], from `x`, `y` of the frame."""

    pixels: NDArray[np.uint8]
    x: int
    y: int


@dataclass(frozen=True)
class Flock:
    """Frames uint8 [height, width, 3] RGB at `fps`; at most `birds` are there at a time."""

    birds: int = 3
    seed: int = 0
    fps: float = 15.0
    width: int = 1280
    height: int = 720

    def frame(self, index: int) -> Image:
        """Return frame `index`. The sensor's noise differs from frame to frame."""
        image, plain = self._lit_stage.copy(), self._stage.copy()
        layers = [self._layer(stay, place) for stay, place in self._present(index)]
        for layer in layers:
            _paste(layer, plain)
        left, right = self._trunk
        plain[:, left:right] = self._stage[:, left:right]
        for layer in layers:
            self._light_part(layer, plain, image)
        return self._noisy(image, index)

    def truth(self, index: int) -> tuple[SceneBird, ...]:
        """Return the birds that show in frame `index`."""
        birds = []
        for stay, place in self._present(index):
            seen = self._alpha_in_frame(self._layer(stay, place))
            share, box = seen
            if share > 0:
                name = self._species(stay.individual).name
                birds.append(SceneBird(box, name, stay.individual, stay.number, share))
        return tuple(birds)

    def _present(self, index: int) -> list[tuple[Stay, Place]]:
        return self._itinerary.at(index / self.fps)

    @cached_property
    def _itinerary(self) -> Itinerary:
        return Itinerary(self.birds, seed=self.seed)

    @property
    def _trunk(self) -> tuple[int, int]:
        return round(TRUNK[0] * self.width), round(TRUNK[1] * self.width)

    @cached_property
    def _stage(self) -> Image:
        image = backdrop(
            np.random.default_rng([self.seed, 11]), width=self.width, height=self.height
        )
        pen = Pen(image, np.diag([self.width, self.height, 1.0]))
        left, right = TRUNK
        pen.fill(np.array([(left, 0), (right, 0), (right, 1), (left, 1)]), (84, 66, 50))
        third = left + 0.3 * (right - left)
        pen.fill(np.array([(left, 0), (third, 0), (third, 1), (left, 1)]), (104, 84, 64))
        return image

    @cached_property
    def _light(self) -> Light:
        return Light.sample(np.random.default_rng([self.seed, 21]))

    @cached_property
    def _lit_stage(self) -> Image:
        return self._light.lit(self._stage)

    @cached_property
    def _shade(self) -> NDArray[np.uint8]:
        return self._light.shade_at(width=self.width, height=self.height)

    @cached_property
    def _grain(self) -> NDArray[np.uint8]:
        shape = (self.height + 64, self.width + 64, 3)
        noise = np.random.default_rng([self.seed, 41]).normal(128, 32, shape)
        return np.clip(noise, 0, 255).astype(np.uint8)

    def _noisy(self, image: Image, index: int) -> Image:
        y, x = np.random.default_rng([self.seed, 43, index]).integers(0, 64, 2)
        weight = self._light.noise / 32
        grain = self._grain[y : y + self.height, x : x + self.width]
        return cv2.addWeighted(image, 1, grain, weight, -128 * weight)  # type: ignore[return-value]

    def _species(self, individual: int) -> Species:
        order: list[int] = np.random.default_rng([self.seed, 3]).permutation(len(_CAST)).tolist()
        return _CAST[order[individual % len(_CAST)]]

    def _layer(self, stay: Stay, place: Place) -> _Layer:
        rng = np.random.default_rng([self.seed, 51, stay.individual])
        plumage, length = sample_plumage(rng), rng.uniform(0.21, 0.3) * self.height
        side = round(1.5 * length)
        pose = _pose(place, span=length / side)
        pixels = _drawn(self._species(stay.individual), pose, plumage, side=side)
        x, y = round(place.x * self.width - side / 2), round(place.y * self.height - side / 2)
        return _Layer(feathered(pixels, rng), x, y)

    def _light_part(self, layer: _Layer, plain: Image, image: Image) -> None:
        """Light the part of `plain` around a bird, and copy it to `image`."""
        side = len(layer.pixels)
        outer = self._clip(layer.x - 2 * _MARGIN, layer.y - 2 * _MARGIN, side + 4 * _MARGIN)
        inner = self._clip(layer.x - _MARGIN, layer.y - _MARGIN, side + 2 * _MARGIN)
        if inner[1].stop <= inner[1].start or inner[0].stop <= inner[0].start:
            return
        lit = self._light.lit(plain[outer], shade=self._shade[outer], height=self.height)
        top, left = inner[0].start - outer[0].start, inner[1].start - outer[1].start
        rows, columns = inner[0].stop - inner[0].start, inner[1].stop - inner[1].start
        image[inner] = lit[top : top + rows, left : left + columns]

    def _clip(self, x: int, y: int, side: int) -> tuple[slice, slice]:
        rows = slice(min(max(y, 0), self.height), min(max(y + side, 0), self.height))
        return rows, slice(min(max(x, 0), self.width), min(max(x + side, 0), self.width))

    def _alpha_in_frame(self, layer: _Layer) -> tuple[float, tuple[int, int, int, int]]:
        """Return the share of a bird that shows, and the box of that."""
        side = len(layer.pixels)
        whole = layer.pixels[:, :, 3] > 127
        rows, columns = self._clip(layer.x, layer.y, side)
        visible = np.zeros_like(whole)
        inside = (
            slice(rows.start - layer.y, rows.stop - layer.y),
            slice(columns.start - layer.x, columns.stop - layer.x),
        )
        if rows.stop > rows.start and columns.stop > columns.start:
            visible[inside] = whole[inside]
        left, right = (min(max(x - layer.x, 0), side) for x in self._trunk)
        visible[:, left:right] = False
        share = float(visible.sum() / max(1, whole.sum()))
        x, y, w, h = cv2.boundingRect(visible.astype(np.uint8))
        return share, (x + layer.x, y + layer.y, w, h)


def _pose(place: Place, *, span: float) -> Pose:
    """Return a pose that swings slowly, as a bird that looks about."""
    rng = np.random.default_rng(place.swing)
    phases, paces = rng.uniform(0, 2 * np.pi, 5), rng.uniform(0.4, 1.6, 5)
    roll, head, tail, squeeze, shear = np.sin(phases + paces * place.seconds).tolist()
    return Pose(
        centre=(0.5, 0.5),
        span=span,
        mirror=place.left,
        roll=10 * roll,
        head=15 * head,
        tail=12 * tail,
        squeeze=0.88 + 0.1 * squeeze,
        shear=0.12 * shear,
    )


def _drawn(species: Species, pose: Pose, plumage: Plumage, *, side: int) -> NDArray[np.uint8]:
    return draw_bird(species, pose=pose, plumage=plumage, width=side, height=side)


def _paste(layer: _Layer, image: Image) -> None:
    height, width = image.shape[:2]
    side = len(layer.pixels)
    top, left = max(layer.y, 0), max(layer.x, 0)
    bottom, right = min(layer.y + side, height), min(layer.x + side, width)
    if bottom <= top or right <= left:
        return
    part = layer.pixels[top - layer.y : bottom - layer.y, left - layer.x : right - layer.x]
    image[top:bottom, left:right] = over(
        np.ascontiguousarray(part), image[top:bottom, left:right].copy()
    )
