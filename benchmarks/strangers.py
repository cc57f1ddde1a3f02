"""What `unknown` is worth: the share of strangers that a bundle calls unknown, and of its right answers that this costs. JSON on stdout.

    python benchmarks/strangers.py BUNDLE DATA FOLDER [FOLDER ...] [--variant fp32] [--images 300]

DATA is the bundle's own data set (its test split), each FOLDER holds pictures of nothing that the bundle knows; of these every k-th is
shown, so that about `--images` are.
"""

from __future__ import annotations

import json
from pathlib import Path

import tyro
from tyro.conf import Positional

from finedge.bundle import Bundle
from finedge.data.walk import pictures_below
from finedge.errors import UsageError
from finedge.image import read_image
from finedge.runtime.classifier import Classifier
from finedge.runtime.telemetry.environment import environment
from finedge.runtime.evaluate.command import predict
from finedge.runtime.evaluate.labelled import evaluated_images


def main(
    bundle: Positional[Path],
    data: Positional[Path],
    folders: Positional[tuple[Path, ...]],
    *,
    variant: str = "fp32",
    images: int = 300,
) -> None:
    """Show both and count."""
    loaded = Bundle.load(bundle)
    with Classifier.open(loaded, variant=variant) as classifier:
        if classifier.confidence is None:
            raise UsageError(
                f"{bundle} has no threshold for {variant}",
                expected="a calibrated bundle",
                fix="finedge calibrate BUNDLE --data DIR",
            )
        threshold = classifier.confidence.reject
        answers = predict(classifier, evaluated_images(loaded, data, split="test").items)
        given_up = float((answers.p[answers.correct, 0] < threshold).mean())
        strangers = [unknown(classifier, folder, images=images) for folder in folders]
    found = {
        "bundle": loaded.name,
        "model": loaded.spec.model,
        "variant": variant,
        "reject": threshold,
        "test": len(answers.items),
    }
    print(
        json.dumps(
            {
                "environment": environment(),
                **found,
                "right_given_up": round(given_up, 4),
                "strangers": strangers,
            },
            indent=1,
        )
    )


def unknown(classifier: Classifier, folder: Path, *, images: int) -> dict[str, object]:
    """Return how many pictures of a folder were shown, and the share that got no answer."""
    paths, _ = pictures_below(folder)
    shown = paths[:: max(1, len(paths) // images)]
    refused = [classifier([read_image(path)])[0].unknown for path in shown]
    return {"folder": folder.name, "n": len(shown), "unknown": round(sum(refused) / len(shown), 4)}


if __name__ == "__main__":
    tyro.cli(main)
