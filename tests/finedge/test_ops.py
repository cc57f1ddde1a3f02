from __future__ import annotations

import numpy as np
import pytest

from finedge.ops import OPS, cross_layer_attention, softmax


def test_each_position_of_the_result_is_a_mean_of_values():
    rng = np.random.default_rng(0)
    q, k, v = (
        rng.normal(size=(2, 4, 3, 3)),
        rng.normal(size=(2, 4, 5, 6)),
        rng.normal(size=(2, 7, 5, 6)),
    )
    y = cross_layer_attention(q, k, v, scale=0.5)
    assert y.shape == (2, 7, 3, 3)
    for b, i, j in [(0, 0, 0), (1, 2, 1)]:
        weights = softmax(0.5 * np.einsum("c,chw->hw", q[b, :, i, j], k[b]).ravel())
        assert y[b, :, i, j] == pytest.approx(v[b].reshape(7, -1) @ weights)


def test_softmax_survives_large_logits():
    assert softmax(np.array([1e4, 0.0, -1e4])) == pytest.approx([1, 0, 0])


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_keyed_by_its_own_name(name):
    assert OPS[name].name == name
    assert OPS[name].domain == "finedge"
