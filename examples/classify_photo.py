"""Classify photos, and show the three most probable labels of each.

python examples/classify_photo.py examples/birds.finedge photo.jpg ...
"""

import argparse
from pathlib import Path

from finedge import Classifier, read_image

BAR = 30  # characters of a bar at 100 %


def classify(bundle: Path, photos: list[Path]) -> None:
    """Print the labels of each photo with their probabilities."""
    with Classifier.open(bundle, topk=3) as classifier:
        for photo in photos:
            (prediction,) = classifier([read_image(photo)])
            remark = "  (unsure: the bundle calls this unknown)" if prediction.unknown else ""
            print(f"{photo}{remark}")
            for entry in prediction.top:
                print(f"  {entry.p:6.1%}  {entry.label:<24} {'#' * round(BAR * entry.p)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Classify photos with a bundle.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    options = parser.parse_args()
    classify(options.bundle, options.photos)
