import numpy as np
import pytest

from finedge.calib.held_out.exits import (
    MIN_LEAVING,
    allowed_losses,
    exit_threshold,
    fit_chain,
)
from finedge.measure import upper95

CLASSES = 4


def head(labels, *, right, margin):
    """Return scores [n, CLASSES]: the true class leads by `margin` where `right`, else another."""
    named = np.where(right, labels, (labels + 1) % CLASSES)
    scores = np.zeros((len(labels), CLASSES), np.float32)
    scores[np.arange(len(labels)), named] = margin
    return scores


@pytest.mark.parametrize(
    ("count", "n", "bound"), [(0, 296, 0.010070), (1, 296, 0.015930), (5, 100, 0.102253)]
)
def test_the_upper_bound_is_that_of_clopper_and_pearson(count, n, bound):
    assert upper95(count, n) == pytest.approx(bound, abs=2e-5)


def test_a_loss_of_zero_allows_none_and_small_sets_allow_less_than_their_share():
    assert allowed_losses(0.0, 296) == 0
    assert allowed_losses(0.01, 296) < 0.01 * 296
    assert allowed_losses(0.01, 10_000) == pytest.approx(0.01 * 10_000, rel=0.2)


def test_the_threshold_lies_above_every_lost_answer():
    p = np.linspace(0.2, 0.95, 100)
    lost = np.zeros(100, np.bool_)
    lost[[10, 40]] = True
    threshold = exit_threshold(p, lost, allowed=0)
    assert p[40] < threshold <= p[41]
    assert exit_threshold(p, lost, allowed=1) <= p[11]
    assert exit_threshold(p, lost, allowed=2) <= p[0]


def test_an_exit_that_few_images_take_stays_closed():
    p = np.linspace(0.2, 0.95, 100)
    lost = np.zeros(100, np.bool_)
    lost[100 - MIN_LEAVING] = True
    assert exit_threshold(p, lost, allowed=0) is None
    lost[:] = False
    lost[99 - MIN_LEAVING] = True
    assert exit_threshold(p, lost, allowed=0) is not None


def test_exits_share_the_images_and_the_losses():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 400)
    margin = rng.uniform(0.5, 6, 400)
    whole = head(labels, right=np.ones(400, bool), margin=margin)
    first_right = margin > 4
    first = head(labels, right=first_right, margin=margin)
    second = head(labels, right=margin > 2, margin=margin)
    one, two = fit_chain(
        [first, second], labels, whole=whole, outputs=["local_0", "local_1"], loss=0.0
    )
    assert (one.output, two.output) == ("local_0", "local_1")
    assert one.share == pytest.approx(first_right.mean())
    assert one.share + two.share == pytest.approx((margin > 2).mean())
    assert (one.lost, two.lost, one.top1, two.top1) == (0, 0, 1.0, 1.0)
    assert two.lost_upper95 == upper95(0, 400)


def test_an_answer_that_the_exit_corrects_is_counted_as_gained():
    labels = np.arange(200) % CLASSES
    whole = head(labels, right=np.arange(200) >= 20, margin=3.0)
    exit_scores = head(labels, right=np.ones(200, bool), margin=3.0)
    (fit,) = fit_chain([exit_scores], labels, whole=whole, outputs=["local_0"], loss=0.0)
    assert (fit.share, fit.lost, fit.gained) == (1.0, 0, 20)
