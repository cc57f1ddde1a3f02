import numpy as np
import pytest

from finedge.train.sweep.paired import bootstrap_means, paired_difference, two_sided


def answers(rate, *, seeds, images, seed):
    """Right answers with a rate that differs from seed to seed and from image to image."""
    generator = np.random.default_rng(seed)
    by_seed, by_image = generator.normal(0, 0.01, (seeds, 1)), generator.normal(0, 0.2, images)
    return generator.random((seeds, images)) < rate + by_seed + by_image


def test_the_difference_is_the_mean_over_seeds_and_images():
    first, second = (answers(r, seeds=3, images=200, seed=s) for r, s in ((0.8, 0), (0.5, 1)))
    one = paired_difference(first, second, draws=2000)
    assert one.mean == pytest.approx(100 * (first.mean() - second.mean()))
    assert one.low < one.mean < one.high
    assert one.p < 0.01
    assert (one.seeds, one.images) == (3, 200)


def test_equal_models_have_no_difference():
    same = answers(0.7, seeds=2, images=50, seed=0)
    one = paired_difference(same, same, draws=500)
    assert (one.mean, one.low, one.high, one.p) == (0, 0, 0, 1)


def test_the_order_of_the_two_models_only_changes_the_sign():
    first, second = (answers(0.7, seeds=3, images=80, seed=s) for s in (0, 1))
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert one.mean == -other.mean
    assert one.low == pytest.approx(-other.high)
    assert one.p == pytest.approx(other.p)


def test_a_gain_of_one_seed_alone_does_not_count():
    second = answers(0.7, seeds=4, images=400, seed=0)
    first = second.copy()
    first[0] = True  # one lucky seed
    one = paired_difference(first, second)
    assert one.mean > 5
    assert one.low == 0  # draws without that seed
    assert one.p > 0.05


def test_the_variance_has_a_part_of_the_seeds_and_one_of_the_images():
    generator = np.random.default_rng(0)
    seeds, images = generator.normal(0, 2, (40, 1)), generator.normal(0, 3, (1, 60))
    means = bootstrap_means(seeds + images, draws=4000, seed=0)
    expected = seeds.var() / 40 + images.var() / 60
    assert means.var() == pytest.approx(expected, rel=0.1)


def test_the_interval_holds_the_truth_in_about_19_of_20_cases():
    held = 0
    for case in range(60):
        first, second = (answers(0.6, seeds=8, images=150, seed=2 * case + s) for s in (0, 1))
        one = paired_difference(first, second, draws=400)
        held += one.low <= 0 <= one.high
    assert 52 <= held <= 60


@pytest.mark.parametrize(
    ("means", "p"), [(np.full(999, 1.0), 0.002), (np.linspace(-1, 1, 999), 1.0)]
)
def test_p_counts_the_draws_beyond_zero(means, p):
    assert two_sided(means) == pytest.approx(p, abs=2e-3)


def test_answers_of_other_images_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        paired_difference(np.ones((2, 3), bool), np.ones((2, 4), bool))
