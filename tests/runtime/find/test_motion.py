"""The motion finder on drawn frames: a square bird on a leafy, noisy picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from finedge.runtime.find.box import Box
from finedge.runtime.find.motion import MotionFinder

FPS = 15.0


@pytest.fixture(scope="module")
def garden() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    small = rng.integers(40, 200, (18, 32, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (640, 360), interpolation=cv2.INTER_CUBIC), np.uint8)


class Camera:
    """Gives frames to a finder, one after another."""

    def __init__(self, garden: NDArray[np.uint8], fps: float = FPS) -> None:
        self.finder, self.garden, self.index, self.fps = MotionFinder(), garden, 0, fps
        rng = np.random.default_rng(1)
        self.noise = [rng.normal(0, 3, (360, 640, 3)).astype(np.int16) for _ in range(4)]

    def see(self, bird: Box | None = None, *, shift: int = 0, light: int = 0) -> tuple[Box, ...]:
        frame = np.roll(self.garden, shift, axis=1).astype(np.int16) + light
        height, width = frame.shape[:2]
        frame += self.noise[self.index % 4][:height, :width]
        if bird is not None:
            frame[bird.y : bird.y + bird.h, bird.x : bird.x + bird.w] = (230, 40, 60)
        self.index += 1
        image = np.clip(frame, 0, 255).astype(np.uint8)
        return self.finder(image, seconds=self.index / self.fps)

    def settle(self) -> None:
        for _ in range(int(self.fps)):
            assert self.see() == ()


@pytest.fixture
def camera(garden: NDArray[np.uint8]) -> Camera:
    camera = Camera(garden)
    camera.settle()
    return camera


def test_a_bird_is_found_where_it_is_and_a_still_scene_is_empty(camera: Camera) -> None:
    bird = Box(200, 100, 60, 40)
    (box,) = camera.see(bird)
    assert box.overlap(bird) > 0.7
    assert camera.see() == ()


def test_a_bird_that_sits_still_is_found_until_it_leaves(camera: Camera) -> None:
    bird = Box(200, 100, 60, 40)
    camera.fps = 5.0
    camera.index = int(camera.index * 5 / FPS)
    for _ in range(12 * 5):
        boxes = camera.see(bird)
    (box,) = boxes
    assert box.overlap(bird) > 0.7
    assert camera.see() == ()  # no ghost where it was


def test_two_birds_are_two_boxes(camera: Camera) -> None:
    camera.see(Box(0, 0, 1, 1))
    one, other = Box(100, 100, 60, 40), Box(400, 200, 60, 40)
    camera.garden = camera.garden.copy()
    camera.garden[one.y : one.y + one.h, one.x : one.x + one.w] = (230, 40, 60)
    boxes = camera.see(other)
    assert [max(box.overlap(bird) for box in boxes) > 0.7 for bird in (one, other)] == [True] * 2


@pytest.mark.parametrize(("shift", "light"), [(8, 0), (0, 60), (0, -40)])
def test_a_shaken_camera_and_a_light_switch_give_no_boxes(
    camera: Camera, shift: int, light: int
) -> None:
    for _ in range(int(3 * FPS)):
        assert camera.see(shift=shift, light=light) == ()
    bird = Box(200, 100, 60, 40)  # by now the new picture is the background
    (box,) = camera.see(bird, shift=shift, light=light)
    assert box.overlap(bird) > 0.7


def test_nothing_counts_where_a_mask_is(camera: Camera) -> None:
    mask = np.zeros((360, 640), np.uint8)
    mask[:, :300] = 255
    camera.finder.ignored = mask
    assert camera.see(Box(200, 100, 60, 40)) == ()
    assert len(camera.see(Box(400, 100, 60, 40))) == 1


def test_a_clock_that_goes_back_and_another_size_start_again(camera: Camera) -> None:
    camera.index = 0
    assert camera.see(Box(200, 100, 60, 40)) == ()
    camera.garden = camera.garden[:200, :300]
    assert camera.see() == ()


def test_a_tiny_frame_is_no_error() -> None:
    finder = MotionFinder()
    for index in range(30):
        assert finder(np.full((4, 5, 3), index, np.uint8), seconds=index / FPS) == ()
