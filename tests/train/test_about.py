import json

import pytest

from finedge.train import about, backbones, models

# Counted independently for the project's reading of the paper: parameters in millions, GMAC at 224 and 448, 200 classes.
PUBLISHED = [
    ("plain", "resnet50", 23.92, 4.09, 16.35),
    ("plain", "resnet101", 42.91, 7.80, 31.20),
    ("cnl", "resnet50", 27.08, 5.02, 20.71),
    ("cnl", "resnet101", 46.08, 8.73, 35.56),
]


@pytest.mark.parametrize(("model", "backbone", "parameters", "small", "large"), PUBLISHED)
def test_the_counts_are_those_of_the_papers_design(model, backbone, parameters, small, large):
    cost = about.cost(model, backbone=backbone)
    assert round(cost["parameters"] / 1e6, 2) == parameters
    assert [round(cost["gmac"][size], 2) for size in ("224", "448")] == pytest.approx([small, large], abs=0.0101)


def test_the_command_lists_everything_registered_as_json():
    listed = json.loads(json.dumps(about.models()))
    assert {m["name"] for m in listed["models"]} == set(models.names())
    assert {b["name"] for b in listed["backbones"]} == set(backbones.names())
    assert len(listed["costs"]) == len(models.names()) * len(backbones.names())
