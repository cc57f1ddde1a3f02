import pytest
import torch
from torch import nn

from finedge.train.ema import MovingAverage


def test_the_average_follows_weights_and_batch_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = MovingAverage(model, decay=0.5)
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    ema.update(model)  # the first update forgets at 1/10, not at 1/2
    for name, average in ema.model.state_dict().items():
        torch.testing.assert_close(
            average, first[name] + (0.9 if average.is_floating_point() else 1)
        )


def test_the_decay_rises_to_its_end():
    model = nn.Linear(1, 1, bias=False)
    ema = MovingAverage(model, decay=0.9)
    ema.updates = 10_000
    nn.init.ones_(model.weight)
    before = ema.model.weight.item()
    ema.update(model)
    assert ema.model.weight.item() == pytest.approx(0.9 * before + 0.1)


def test_the_average_is_not_trained():
    ema = MovingAverage(nn.Linear(1, 1), decay=0.9)
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert not ema.model.training
