from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finedge.errors import BundleError, DataError
from finedge.label_tree import Coarser, CoarserRule, LabelTree, read_label_tree

LABELS = ("downy", "hairy", "house", "purple", "american", "jay")
NESTED = {
    "woodpecker": ["downy", "hairy"],
    "finch": {"rosefinch": ["house", "purple"], "goldfinch": ["american"]},
}
TREE = LabelTree.parse(NESTED, LABELS, name="labels.json")
RULES = (CoarserRule(1, 0.8), CoarserRule(2, 0.9))


def test_groups_hold_the_classes_of_all_groups_below_them() -> None:
    groups = {group.label: (group.depth, group.members) for group in TREE.groups}
    assert groups == {
        "woodpecker": (1, (0, 1)),
        "rosefinch": (2, (2, 3)),
        "goldfinch": (2, (4,)),
        "finch": (1, (2, 3, 4)),
    }
    assert TREE.depth == 2


@pytest.mark.parametrize(
    ("p", "answer"),
    [
        ([0.5, 0.4, 0.1, 0, 0, 0], "woodpecker"),
        ([0, 0, 0.5, 0.45, 0.05, 0], "rosefinch"),  # the deepest that is sure
        ([0, 0, 0.45, 0.40, 0.1, 0.05], "finch"),
        ([0.3, 0.3, 0.2, 0.2, 0, 0], None),
        ([0, 0, 0, 0, 0, 1.0], None),  # in no group
    ],
)
def test_the_deepest_sure_group_is_named(p: list[float], answer: str | None) -> None:
    named = Coarser(TREE, RULES)(np.array(p, np.float32))
    assert (named and named[0]) == answer
    assert named is None or 0.8 <= named[1] <= 1.0


def test_a_depth_without_a_threshold_is_never_named() -> None:
    closed = Coarser(TREE, (CoarserRule(1, None), CoarserRule(2, None)))
    assert closed(np.array([0.5, 0.5, 0, 0, 0, 0], np.float32)) is None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([], "labels.json"),
        ({}, "no groups"),
        ({"finch": []}, "no classes"),
        ({"finch": {}}, "no classes"),
        ({"finch": "house"}, "is 'house'"),
        ({"finch": [3]}, "holds 3"),
        ({"finch": ["house", "house"]}, "'house' stands twice"),
        ({"a": ["house"], "b": {"a": ["jay"]}}, "'a' stands twice"),
        ({"jay": ["house"]}, "name of a class"),
        ({"unknown": ["jay"]}, "a group 'unknown'"),
        ({"finch": ["hose"]}, "no class 'hose'"),
        ({"": ["house"]}, "0 characters"),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": ["jay"]}}}}}}}}}, "8 levels"),
    ],
)
def test_a_file_of_another_form_is_refused(data: object, text: str) -> None:
    with pytest.raises(DataError, match=text):
        LabelTree.parse(data, LABELS, name="labels.json")


def test_a_label_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(DataError, match="did you mean 'house'"):
        LabelTree.parse({"finch": ["hose"]}, LABELS, name="labels.json")


def test_a_file_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    with pytest.raises(DataError, match="missing"):
        read_label_tree(file)
    file.write_text('{"a": ["downy"], "a": ["hairy"]}')
    with pytest.raises(DataError, match="twice"):
        read_label_tree(file)
    file.write_text(json.dumps(NESTED))
    assert LabelTree.parse(read_label_tree(file), LABELS, name="x") == TREE


def test_a_bundle_carries_its_tree(tiny_record) -> None:  # type: ignore[no-untyped-def]
    bundle = tiny_record({"tree": {"warm": ["red", "orange"]}, "rules": {"fp32": [RULES_JSON]}})
    coarser = bundle.coarser("fp32")
    assert coarser is not None
    p = np.array([label in ("red", "orange") for label in bundle.spec.labels], np.float32) / 2
    assert coarser(p) == ("warm", 1.0)
    assert bundle.coarser("int8") is None
    assert tiny_record({}).coarser("fp32") is None
    with pytest.raises(BundleError):
        tiny_record({"tree": {"warm": ["lila"]}, "rules": {"fp32": [RULES_JSON]}}).coarser("fp32")
    with pytest.raises(BundleError):
        tiny_record({"tree": {}, "rules": {"fp32": [{"depth": 1, "threshold": 7}]}}).coarser("fp32")


RULES_JSON = {"depth": 1, "threshold": 0.8}


@pytest.fixture
def tiny_record():  # type: ignore[no-untyped-def]
    from finedge.bundle import Bundle
    from tests.runtime.conftest import SPEC

    return lambda record: Bundle(
        Path("tiny.finedge"), SPEC, {}, provenance={"calibrate": {"label_tree": record}}
    )
