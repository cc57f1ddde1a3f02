"""The choice of attention in INT8, with as few images as it needs."""

import numpy as np
import pytest

from finedge.calib.decision.attention_mode import attention_choice

N = 64
LABELS = np.zeros(N, np.intp)


def _scores(margins):
    """Return scores of two classes: the first leads by the margins."""
    return np.stack([margins, np.zeros(N)], axis=1).astype(np.float32)


@pytest.fixture
def float_scores():
    return _scores(np.linspace(1, 6, N))


def test_equal_modes_are_clear_after_one_block(float_scores):
    choice = attention_choice(float_scores, float_scores, float_scores, labels=LABELS)
    assert choice.keeps_answers
    assert choice.is_clear


def test_a_loss_on_every_image_is_clearly_refused(float_scores):
    worse = _scores(np.linspace(-1, 3, N))
    choice = attention_choice(float_scores, float_scores, worse, labels=LABELS)
    assert not choice.keeps_answers
    assert choice.is_clear


def test_a_lost_answer_needs_more_images(float_scores):
    margins = np.linspace(1, 6, N)
    margins[0] = -0.01
    choice = attention_choice(float_scores, float_scores, _scores(margins), labels=LABELS)
    assert not choice.is_clear


def test_probabilities_that_spread_widely_need_more_images(float_scores):
    noise = np.tile([1.0, -0.9], N // 2)
    choice = attention_choice(
        float_scores, float_scores, _scores(np.linspace(1, 6, N) + noise), labels=LABELS
    )
    assert choice.keeps_answers
    assert not choice.is_clear
