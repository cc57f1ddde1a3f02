from dataclasses import replace

import numpy as np
import pytest

from finedge.bundle import Bundle
from finedge.calib.calibrate import label_tree_data
from finedge.calib.held_out.confidence import fit
from finedge.calib.held_out.images import HeldOutScores
from finedge.calib.held_out.label_tree import (
    MIN_NAMED,
    WINDOW,
    fit_depths,
    fit_label_tree,
    lowest_threshold,
    meets_rule,
)
from finedge.errors import DataError
from finedge.label_tree import Coarser, CoarserRule, LabelTree
from finedge.spec import Input, Preprocess, Spec

LABELS = tuple("abcdef")
TREE = LabelTree.parse({"vowel": ["a", "e"], "first": {"bc": ["b", "c"]}}, LABELS, name="tree")


def confused(n, *, seed=0):
    """Return labels and scores: a and e look alike, b and c too; the rest is told apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, n)
    scores = rng.normal(0, 0.6, (n, 6)).astype(np.float32)
    twin = np.array([4, 2, 1, 3, 0, 5])[labels]
    scores[np.arange(n), labels] += 4
    scores[np.arange(n), twin] += np.where(twin != labels, 4, 0)
    return labels, scores


def test_the_least_sure_names_must_be_right():
    p = np.linspace(0.99, 0.4, 300)
    right = np.ones(300, bool)
    assert lowest_threshold(p, right) == pytest.approx(p[-1], abs=2e-6)
    right[200::4] = False  # a quarter of the unsure ones is wrong: 5 % of the first 240
    threshold = lowest_threshold(p, right)
    named = p >= threshold
    window = ~right[named][-WINDOW:]
    assert meets_rule(int(window.sum()), WINDOW)
    assert not meets_rule(int(window.sum()) + 1, WINDOW)
    assert 200 <= named.sum() < 220
    assert right[named].mean() > 0.98


@pytest.mark.parametrize(("named", "allowed"), [(30, 0), (60, 1), (100, 3)])
def test_small_sets_allow_less_than_their_share(named, allowed):
    assert meets_rule(allowed, named)
    assert not meets_rule(allowed + 1, named)


def test_few_images_or_many_wrong_ones_close_a_depth():
    p = np.linspace(0.99, 0.4, 100)
    assert lowest_threshold(p[: MIN_NAMED - 1], np.ones(MIN_NAMED - 1, bool)) is None
    assert lowest_threshold(p, np.arange(100) % 4 > 0) is None
    assert lowest_threshold(np.array([]), np.array([], bool)) is None


def test_images_of_equal_probability_are_named_together():
    p = np.full(80, 0.9)
    right = np.arange(80) < 60  # the first 60 alone would meet the rule
    assert lowest_threshold(p, right) is None


def test_the_deepest_groups_come_first_and_the_rest_is_left_to_those_above():
    labels, scores = confused(900)
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    deep, top = fit_depths(p, labels, tree=TREE, reject=0.9)
    assert (deep.depth, top.depth) == (2, 1)
    assert deep.asked == 900
    assert top.asked == deep.asked - deep.named
    assert deep.named > 200
    assert top.named > 200
    for one in (deep, top):
        assert one.right / one.named >= 0.95
        assert one.unknown_named <= one.named
        assert one.wilson95[0] < one.right / one.named <= one.wilson95[1]
    coarser = Coarser(TREE, tuple(CoarserRule(f.depth, f.threshold) for f in (deep, top)))
    named = [coarser(row) for row in p.astype(np.float32)]
    assert sum(answer is not None for answer in named) == deep.named + top.named
    unknown = p.max(axis=1) < 0.9
    of_unknown = sum(named[i] is not None for i in np.flatnonzero(unknown))
    assert of_unknown == deep.unknown_named + top.unknown_named > 0


def test_every_variant_has_thresholds_of_its_own():
    labels, scores = confused(400)
    short = scores[:64]
    held = HeldOutScores(
        {"fp32": scores, "fp16": short, "int8": scores * 2}, dict.fromkeys("abc", ""), labels
    )
    confidence = {
        name: fit(scores if name == "fp16" else held.scores[name], labels, file="")
        for name in held.variants
    }
    fits = fit_label_tree(held, TREE, confidence=confidence)
    assert list(fits) == ["fp32", "fp16", "int8"]
    assert fits["fp16"] == fits["fp32"]


def test_a_later_calibration_fits_the_groups_of_the_bundle_again(tmp_path):
    spec = Spec("tiny", "none", LABELS, Preprocess(resize=8, crop=8), Input(8, 8))
    tree = {"vowel": ["a", "e"]}
    bundle = Bundle(tmp_path, spec, {}, provenance={"calibrate": {"label_tree": {"tree": tree}}})
    assert label_tree_data(bundle, None) == tree
    assert label_tree_data(replace(bundle, provenance={}), None) == {}
    file = tmp_path / "labels.json"
    file.write_text('{"other": ["b", "c"]}')
    assert label_tree_data(bundle, file) == {"other": ["b", "c"]}
    file.write_text('{"other": ["bee"]}')
    with pytest.raises(DataError, match="no class 'bee'"):
        label_tree_data(bundle, file)
    with pytest.raises(DataError, match="missing"):
        label_tree_data(bundle, tmp_path / "none.json")
