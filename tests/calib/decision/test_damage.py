import numpy as np
import pytest

from finedge.calib.decision.damage import damage_of, first_images, with_hard_views
from finedge.calib.decision.decision_set import DecisionImages, draw_samples
from finedge.data import open_dataset
from tests.calib.conftest import SPEC

LABELS = np.array([0, 1, 0, 1])
SCORES = np.array([[4, 0], [0, 4], [0.2, 0], [0, 0.2]], np.float32)


def test_the_same_scores_cost_nothing():
    damage = damage_of(SCORES, SCORES, labels=LABELS)
    assert (damage.kl, damage.drop, damage.limit) == (0, 0, 0)
    assert damage.within(0)


def test_the_expected_drop_is_small_where_the_float_model_was_not_sure():
    swapped = SCORES.copy()
    swapped[2] = SCORES[2, ::-1]
    damage = damage_of(SCORES, swapped, labels=LABELS)
    sure = 1 / (1 + np.exp(-0.2))
    assert damage.expected == pytest.approx([0, 0, 2 * sure - 1, 0])
    assert damage.drop == 0.25


def test_an_answer_that_becomes_right_by_chance_is_no_reason_to_pass():
    wrong = 1 - LABELS
    gained = np.where(np.arange(4)[:, None] < 2, SCORES, SCORES[:, ::-1])
    damage = damage_of(SCORES, gained, labels=wrong)
    assert damage.drop < 0
    assert damage.limit > 0.05
    assert not damage.within(0.05)


def test_hard_views_follow_the_images_and_are_other_pictures(picture_folder):
    sample = draw_samples(open_dataset(picture_folder), images=16).decision
    images = with_hard_views(sample, SPEC.preprocess)
    plain, hard = np.split(images.frames, 2)
    assert np.array_equal(*np.split(images.labels, 2))
    assert all((a != b).mean() > 0.5 for a, b in zip(plain, hard, strict=True))
    again = with_hard_views(sample, SPEC.preprocess)
    assert np.array_equal(images.frames, again.frames)


def test_the_first_images_keep_their_hard_views():
    frames = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    few = first_images(DecisionImages(frames, np.arange(8) % 4), count=2)
    assert few.frames.ravel().tolist() == [0, 1, 4, 5]
    assert few.labels.tolist() == [0, 1, 0, 1]
