"""A backbone, its model and its images, small enough to cache in a test."""

from types import SimpleNamespace

import pytest
import torch

from finedge.data import open_dataset
from finedge.spec import Preprocess
from finedge.train.models import build_model
from finedge.train.quick.cached_backbone import map_shapes
from finedge.train.recipe import Recipe

SIDE = 32
RECIPE = Recipe(size=SIDE, resize=36, batch_size=8, views=2, augment="resized-crop", bf16="off")


@pytest.fixture(scope="session")
def small(pictures):
    """A cnl on a tiny backbone, 36 + 18 images, and what the cache takes."""
    torch.manual_seed(0)
    model = build_model("cnl", num_classes=3, backbone="mobilenetv2_035").eval()
    return SimpleNamespace(
        model=model,
        data=open_dataset(pictures),
        arguments={
            "preprocess": Preprocess(36, SIDE, "cv2-antialias"),
            "recipe": RECIPE,
            "shapes": map_shapes(model, size=SIDE),
        },
    )
