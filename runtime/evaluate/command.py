"""`finedge evaluate`: the accuracy of a bundle on a whole split, through the path the camera takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from finedge.bundle import Bundle
from finedge.data import Item, NewImages
from finedge.errors import DataError
from finedge.image import read_image
from finedge.measure import accuracy_record
from finedge.runtime.evaluate.labelled import bundle_dataset, evaluated_images
from finedge.subset import first_balanced
from finedge.synthetic import perturb

if TYPE_CHECKING:
    from finedge.runtime.classifier import Classifier

__all__ = ["Answers", "bundle_dataset", "evaluate", "predict"]

READ_AHEAD = 32  # images decoded at a time
SHOWN = 5


def evaluate(
    bundle: Positional[Path],
    *,
    data: Path | None = None,
    split: str = "test",
    variant: str = "auto",
    backend: str = "auto",
    robustness: bool = False,
    images: int = 0,
    new_images: NewImages = "ignore",
    allow_overlap: bool = False,
) -> dict[str, Any]:
    """Print the accuracy of a bundle on a split: top1, top5, n, wilson95.

    The split is the one that training stored: images are known by their content, whatever they are
    called now.

    Args:
        bundle: the bundle's folder.
        data: the images; default: those the training recorded.
        split: train, val or test.
        variant: fp32, fp16 or int8; auto is int8 where the bundle holds it.
        backend: a backend's name; auto is the first that runs here.
        robustness: also on the same images turned, scaled, seen from aside, bent, and cluttered (`finedge.synthetic.perturb`).
        images: how many, chosen evenly over the classes; 0 is the whole split.
        new_images: where images go that the stored split does not know: nowhere (ignore), or into
            train, val or test.
        allow_overlap: measure also on images that were trained on, or may have been; the result
            counts them.
    """
    from finedge.runtime.classifier import Classifier

    loaded = Bundle.load(bundle)
    chosen = evaluated_images(
        loaded,
        data,
        split=split,
        new_images=new_images,
        allow_overlap=allow_overlap,
    )
    items = first_balanced(chosen.items, images)
    with Classifier.open(loaded, variant=variant, backend=backend) as classifier:
        found = predict(classifier, items).record()
        if robustness:
            found = perturb.robustness(
                found,
                {
                    name: predict(classifier, items, perturbation=name).record()
                    for name in perturb.PERTURBATIONS
                },
            )
        info = classifier.session.info
        ran = {
            "variant": classifier.variant,
            "backend": info.backend,
            "file": info.file,
            "precision": info.precision,
        }
        return {**found, **ran, "split": split, "data": chosen.record}


@dataclass(frozen=True)
class Answers:
    """What a classifier said about labelled images.

    `labels` int [n] is the truth; `ranked` int [n, k] the classes it named, the best first (k = 5, or all if fewer); `p` float32
    [n, k] their probabilities.
    """

    items: tuple[Item, ...]
    labels: NDArray[np.intp]
    ranked: NDArray[np.intp]
    p: NDArray[np.float32]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the first named class is the truth: bool [n]."""
        return np.equal(self.ranked[:, 0], self.labels)

    def record(self) -> dict[str, object]:
        """Return top1, top5, n and wilson95."""
        within = (self.ranked == self.labels[:, None]).any(axis=1)
        return accuracy_record(int(self.correct.sum()), int(within.sum()), len(self.items))


def predict(
    classifier: Classifier, items: tuple[Item, ...], *, perturbation: str | None = None
) -> Answers:
    """Classify labelled images one by one, as a camera would, with a progress bar where stderr is a terminal.

    `perturbation` names one that the decoded frames go through first.

    Raises:
        DataError: no images, or one cannot be read (see `finedge.data.drop_unreadable`).
    """
    from finedge.runtime.classifier import order

    if not items:
        raise DataError("no images to evaluate", expected="at least one")
    scores = np.concatenate(
        [
            classifier.scores(batch)
            for batch in _watched(
                _batches(classifier, items, perturbation=perturbation), len(items)
            )
        ]
    )
    p = classifier.probabilities(scores)
    ranked = order(p)[:, :SHOWN]
    labels = np.array([i.label for i in items], dtype=np.intp)
    return Answers(items, labels, ranked, np.take_along_axis(p, ranked, axis=1).astype(np.float32))


def _batches(
    classifier: Classifier, items: tuple[Item, ...], *, perturbation: str | None
) -> Iterator[NDArray[np.uint8]]:
    """Yield batches of one, prepared in threads a few images ahead (OpenCV and Pillow release the interpreter lock)."""

    def prepared(index: int) -> NDArray[np.uint8]:
        frame = read_image(items[index].path)
        return classifier.prepare(
            [perturb.perturb(frame, perturbation, index=index) if perturbation else frame]
        )

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(items), READ_AHEAD):
            yield from pool.map(prepared, range(start, min(start + READ_AHEAD, len(items))))


def _watched(batches: Iterable[NDArray[np.uint8]], total: int) -> Iterable[NDArray[np.uint8]]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(batches, "evaluate", total=total, console=console, disable=not console.is_terminal)
