"""How well a bundle recognises pictures of other things. JSON on stdout.

It counts the share of out-of-distribution pictures that the bundle calls unknown, and the share of
its right answers that it rejects for that.

    python benchmarks/out_of_distribution.py BUNDLE DATA FOLDER [FOLDER ...] [--variant fp32]

DATA is the bundle's own data set (its test split). Each FOLDER holds pictures of nothing that the
bundle knows. Of these every k-th is classified, so that about `--images` are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional

from finedge.bundle import Bundle
from finedge.data.walk import pictures_below
from finedge.errors import UsageError
from finedge.image import read_image
from finedge.runtime.classifier import Classifier
from finedge.runtime.evaluate.labelled import SplitOptions, evaluated_images
from finedge.runtime.evaluate.predict import predict
from finedge.runtime.telemetry.environment import environment


def main(
    bundle: Positional[Path],
    data: Positional[Path],
    folders: Positional[tuple[Path, ...]],
    *,
    variant: str = "fp32",
    images: int = 300,
) -> None:
    """Measure both shares and print them."""
    loaded = Bundle.load(bundle)
    with Classifier.open(loaded, variant=variant) as classifier:
        threshold = reject_threshold(classifier)
        items = evaluated_images(loaded, SplitOptions(data=data)).items
        answers = predict(classifier, items)
        best = answers.probabilities[answers.correct, 0]
        record = {
            "environment": environment(),
            "bundle": loaded.name,
            "model": loaded.spec.model,
            "variant": variant,
            "reject": threshold,
            "test": len(items),
            "false_rejects": round(float((best < threshold).mean()), 4),
            "out_of_distribution": [unknown(classifier, f, images=images) for f in folders],
        }
    print(json.dumps(record, indent=1))


def reject_threshold(classifier: Classifier) -> float:
    """Return the probability below which the bundle abstains.

    Raises:
        UsageError: the bundle was not calibrated.
    """
    if classifier.confidence is None:
        raise UsageError(
            f"{classifier.bundle.path} has no threshold for {classifier.variant}",
            expected="a calibrated bundle",
            fix="finedge calibrate BUNDLE --data DIR",
        )
    return classifier.confidence.reject


def unknown(classifier: Classifier, folder: Path, *, images: int) -> dict[str, Any]:
    """Return how many pictures of a folder were classified, and the share that is unknown."""
    paths, _ = pictures_below(folder)
    chosen = paths[:: max(1, len(paths) // images)]
    rejected = sum(classifier([read_image(path)])[0].unknown for path in chosen)
    return {"folder": folder.name, "n": len(chosen), "unknown": round(rejected / len(chosen), 4)}


if __name__ == "__main__":
    tyro.cli(main)
