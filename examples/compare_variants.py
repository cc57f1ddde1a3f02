"""Compare the variants of a bundle on your photos: size, speed, and agreement with fp32.

python examples/compare_variants.py examples/birds.finedge photos/
"""

import argparse
from pathlib import Path
from statistics import median

from finedge import Bundle, Classifier, open_source


def answers(bundle: Bundle, variant: str, folder: Path) -> tuple[list[str], float, str]:
    """Return the label of each photo, the median milliseconds a photo, and the file that ran."""
    labels, times = [], []
    with Classifier.open(bundle, variant=variant) as classifier, open_source(str(folder)) as photos:
        for photo in photos:
            (prediction,) = classifier([photo.image])
            labels.append(prediction.top[0].label)
            times.append(prediction.ms.preprocess + prediction.ms.infer)
        return labels, median(times), classifier.session.info.file


def compare(path: Path, folder: Path) -> None:
    """Print one line a variant."""
    bundle = Bundle.load(path)
    reference, _, _ = answers(bundle, "fp32", folder)
    print(f"{bundle.name}: {len(reference)} photos")
    print(f"{'variant':<8} {'size':>8} {'median':>9} {'same label as fp32':>19}")
    for variant in bundle.variants():
        labels, ms, file = answers(bundle, variant, folder)
        same = sum(a == b for a, b in zip(labels, reference, strict=True)) / len(labels)
        size = (path / file).stat().st_size / 1e6
        print(f"{variant:<8} {size:5.1f} MB {ms:6.2f} ms {same:19.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare the variants of a bundle.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    compare(options.bundle, options.folder)
