"""A data set small enough to train on in a test: three classes that differ in colour and shape."""

from dataclasses import fields

import cv2
import numpy as np
import pytest

from finedge.train import command
from finedge.train.request import MachineOptions, ModelOptions, RecipeOptions, RunOptions

COLOURS = {"blue": (40, 60, 220), "green": (30, 200, 60), "red": (220, 50, 40)}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """ImageFolder with 3 classes, 12 train, 6 val and 4 test images each, 48 x 40 pixels."""
    root, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6), ("test", 4)):
        for label, colour in COLOURS.items():
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                image = generator.integers(0, 120, (40, 48, 3), np.uint8)
                centre = tuple(int(x) for x in generator.integers(14, 26, 2))
                cv2.circle(image, centre, 9, colour[::-1], -1)
                cv2.imwrite(str(root / split / label / f"{number:02}.png"), image)
    return root


@pytest.fixture
def settings(pictures):
    """The arguments of a training that takes about a second.

    A network without weights begins here with losses of 15 to 55. At a learning rate of 0.02
    rounding decides whether it diverges: with a teacher it did with AVX2, and not with AVX-512. At
    0.0005 the losses stay below 75 on both.
    """
    return {
        "data": pictures,
        "model": "plain",
        "backbone": "mobilenetv2_035",
        "weights": "none",
        "size": 32,
        "batch_size": 8,
        "epochs": 2,
        "lr": 0.0005,
        "device": "cpu",
    }


@pytest.fixture(scope="session")
def train():
    """`finedge train` with its options as keywords, as flat as on its command line."""
    groups = {
        "run": RunOptions,
        "model": ModelOptions,
        "recipe": RecipeOptions,
        "machine": MachineOptions,
    }

    def flat(**options):
        values = {
            name: group(**{f.name: options.pop(f.name) for f in fields(group) if f.name in options})
            for name, group in groups.items()
        }
        assert not options
        return command.train(**values)

    return flat
