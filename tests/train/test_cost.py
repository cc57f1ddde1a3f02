import json

import pytest

from finedge.errors import UsageError
from finedge.train import backbones, models
from finedge.train.cost import cost
from finedge.train.listing.command import models as list_command

# Counted independently, from the papers: parameters in millions, GMAC at 224 and 448, 200 classes.
# clca_cga has its own test: its two attention nodes count the matrix of cosines twice.
COUNTED = [
    ("plain", "resnet50", {}, 23.92, 4.09, 16.35),
    ("plain", "resnet101", {}, 42.91, 7.80, 31.20),
    ("cnl", "resnet50", {}, 27.08, 5.02, 20.71),
    ("cnl", "resnet101", {}, 46.08, 8.73, 35.56),
    ("cs", "resnet50", {}, 25.66, 4.57, 18.58),
    ("cs", "resnet101", {}, 44.65, 8.28, 33.43),
    ("attend_rectify", "resnet50", {}, 36.96, 4.20, 16.77),
    ("attend_rectify", "resnet50", {"kernel_size": 1}, 25.37, 4.10, 16.40),
    ("attend_rectify", "resnet50", {"last": True}, 49.99, 4.16, 16.58),
    ("fcn", "resnet50", {}, 23.92, 4.09, 16.35),
    ("ca", "resnet50", {}, 26.45, 4.09, 16.35),
    ("sa", "resnet50", {}, 23.92, 4.09, 16.35),
    ("csca", "resnet50", {}, 26.45, 4.09, 16.36),
]


@pytest.mark.parametrize(("model", "backbone", "options", "parameters", "small", "large"), COUNTED)
def test_the_counts_are_those_of_the_papers_design(
    model, backbone, options, parameters, small, large
):
    counts = cost(model, backbone=backbone, **options)
    assert round(counts["parameters"] / 1e6, 2) == parameters
    assert [round(counts["gmac"][size], 2) for size in ("224", "448")] == pytest.approx(
        [small, large], abs=0.0101
    )


def test_the_command_lists_everything_registered_as_json():
    listed = json.loads(json.dumps(list_command(backbone=("mobilenetv2_035",))))
    assert {m["name"] for m in listed["models"]} == set(models.names())
    assert {b["name"] for b in listed["backbones"]} == set(backbones.names())
    assert [c["model"] for c in listed["costs"]] == list(models.names())


def test_an_unknown_backbone_is_reported_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'resnet50'"):
        list_command(backbone=("resnet5",))
