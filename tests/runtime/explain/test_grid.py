"""Where a feature map's positions lie: predicted from the graph, measured by gradients."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch

from finedge.export.to_onnx import to_onnx
from finedge.runtime.explain.graph import Graph
from finedge.runtime.explain.grid import AxisPositions, Grid, Places
from finedge.spec import Input, Preprocess, Spec
from finedge.train.models import build_model

SIZE = 128
# In a random network the centre of mass of a position's gradient is within about a pixel of the
# centre of its receptive field.
PIXELS = 1.0


def centre_of_gradient(model, block, position):
    images = torch.randn(
        8, 3, SIZE, SIZE, requires_grad=True, generator=torch.Generator().manual_seed(0)
    )
    features = model.backbone.run(images, until=block)[0]
    (gradient,) = torch.autograd.grad((features[:, :, position, position] ** 2).sum(), images)
    energy = (gradient**2).sum((0, 1)).double()
    pixels = torch.arange(SIZE) + 0.5
    return (float((energy.sum(1 - axis) * pixels).sum() / energy.sum()) for axis in (0, 1))


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18"])
def test_the_predicted_centre_is_where_the_gradient_comes_from(backbone):
    torch.manual_seed(0)
    model = build_model("plain", num_classes=2, backbone=backbone).eval()
    graph, taps = to_onnx(
        model, Spec("plain", backbone, ("a", "b"), Preprocess(SIZE, SIZE), Input(SIZE, SIZE))
    )
    places = Places(Graph(ir.to_proto(graph)))
    block = model.backbone.stages[
        -3
    ]  # later ones see the whole frame, and its edge pulls the gradient
    tap = next(t for t in taps if t.name == f"backbone.{block}")
    size = SIZE // 8
    grid = places.grid(tap.tensor, shape=(size, size), frame=(SIZE, SIZE))
    y, x = centre_of_gradient(model, block, size // 2)
    assert grid.y.at(size // 2) == pytest.approx(y, abs=PIXELS)
    assert grid.x.at(size // 2) == pytest.approx(x, abs=PIXELS)
    middle_of_the_cell = (size // 2 + 0.5) * 8
    assert abs(grid.y.at(size // 2) - middle_of_the_cell) == 3.5


def test_what_the_graph_does_not_tell_is_taken_as_equal_cells(make_bundle):
    import onnx

    from finedge.bundle import FLOAT_FILE

    bundle = make_bundle("plain").bundle
    places = Places(Graph(onnx.load(bundle.file(FLOAT_FILE))))
    cells = Grid(AxisPositions(16, 8), AxisPositions(32, 16))
    for tensor in ("no such tensor", "logits"):
        assert places.grid(tensor, shape=(4, 2), frame=(64, 64)) == cells


def test_the_nearest_position_of_a_pixel_stays_inside():
    line = AxisPositions(step=8, first=7.5)
    assert [line.nearest(p, size=4) for p in (0, 7.5, 12, 30, 500)] == [0, 0, 1, 3, 3]
