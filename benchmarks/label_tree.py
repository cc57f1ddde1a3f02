"""Coarser answers on images that chose nothing: how many are named, and how many of them rightly?

    python -m benchmarks.label_tree BUNDLE DATA LABELS.json [--images 1000]

The thresholds are fitted on the validation split, as `finedge calibrate --label-tree` does, and
measured on the test split: up to `images` of it, evenly over the classes. It prints one JSON object
a variant: of the test images whose class stays unknown, how many get the name of a group, and how
many of these are in it, with the 95 % Wilson interval.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.soak.broker import commit
from finedge.bundle import Bundle
from finedge.calib.held_out.confidence import fit_confidence
from finedge.calib.held_out.images import FLOAT, held_out, variant_scores
from finedge.calib.held_out.label_tree import fit_label_tree
from finedge.calib.ranges.calibration_set import CalibrationSet
from finedge.label_tree import Coarser, CoarserRule, LabelTree, read_label_tree
from finedge.measure import wilson95
from finedge.ops import softmax
from finedge.runtime.evaluate.labelled import bundle_dataset
from finedge.runtime.telemetry.environment import environment
from finedge.subset import first_balanced


def main() -> None:
    """Fit on val, measure on test, print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    data = bundle_dataset(bundle, options.data, new_images="ignore")
    tree = LabelTree.parse(
        read_label_tree(options.labels), bundle.spec.labels, name=options.labels.name
    )
    sample = held_out(data)
    if sample is None:
        raise SystemExit("too few validation images")
    held = variant_scores(bundle, sample)
    confidence = fit_confidence(held)
    fits = fit_label_tree(held, tree, confidence=confidence)
    items = first_balanced(tuple(data.splits["test"]), options.images)
    test = variant_scores(bundle, CalibrationSet(items, ("",) * len(items)))
    for variant, depths in fits.items():
        source = FLOAT if test.same_as_float(variant) else variant
        p = softmax(test.scores[source] / np.float32(confidence[variant].temperature))
        rules = tuple(CoarserRule(fit.depth, fit.threshold) for fit in depths)
        row = {
            "data": options.data.name,
            "bundle": bundle.name,
            "variant": variant,
            "groups": len(tree.groups),
            "val": [asdict(fit) for fit in depths],
            "test": measured(p, test.labels, Coarser(tree, rules), confidence[variant].reject),
            "cpu": environment()["cpu"],
            "commit": commit(),
        }
        print(json.dumps(row), flush=True)


def measured(
    p: np.ndarray, labels: np.ndarray, coarser: Coarser, reject: float
) -> dict[str, object]:
    """Return what becomes of test images: p is float [n, classes]."""
    members = {group.label: set(group.members) for group in coarser.tree.groups}
    unknown = np.flatnonzero(p.max(axis=1) < reject)
    answers = [(coarser(p[i]), int(labels[i])) for i in unknown]
    named = [(answer[0], label) for answer, label in answers if answer is not None]
    right = sum(label in members[name] for name, label in named)
    low, high = wilson95(right, len(named))
    class_right = int((p[unknown].argmax(axis=1) == labels[unknown]).sum())
    return {
        "n": len(labels),
        "unknown": len(unknown),
        "unknown_class_right": class_right,
        "named": len(named),
        "right": right,
        "wilson95": [round(low, 4), round(high, 4)],
    }


if __name__ == "__main__":
    main()
