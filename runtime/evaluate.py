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

from finedge import perturb
from finedge.bundle import Bundle
from finedge.data import DataSet, Item, drop_unreadable, open_dataset
from finedge.errors import DataError, UsageError
from finedge.image import read_image
from finedge.measure import accuracy_record
from finedge.subset import first_balanced

if TYPE_CHECKING:
    from finedge.runtime.classifier import Classifier

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
) -> dict[str, Any]:
    """Print the accuracy of a bundle on a split: top1, top5, n, wilson95.

    Args:
        bundle: the bundle's folder.
        data: the images; default: those the training recorded.
        split: train, val or test.
        variant: fp32, fp16 or int8; auto is int8 where the bundle holds it.
        backend: a backend's name; auto is the first that runs here.
        robustness: also on the same images turned, scaled, seen from aside, bent, and cluttered (`finedge.perturb`).
        images: how many, chosen evenly over the classes; 0 is the whole split.
    """
    from finedge.runtime.classifier import Classifier

    loaded = Bundle.load(bundle)
    items = first_balanced(drop_unreadable(bundle_dataset(loaded, data), splits=(split,)).split(split), images)
    with Classifier.open(loaded, variant=variant, backend=backend) as classifier:
        found = predict(classifier, items).record()
        if robustness:
            found = perturb.robustness(found, {name: predict(classifier, items, perturbation=name).record() for name in perturb.PERTURBATIONS})
        info = classifier.session.info
        return {**found, "variant": classifier.variant, "backend": info.backend, "file": info.file, "precision": info.precision, "split": split}


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


def predict(classifier: Classifier, items: tuple[Item, ...], *, perturbation: str | None = None) -> Answers:
    """Classify labelled images one by one, as a camera would, with a progress bar where stderr is a terminal.

    `perturbation` names one that the decoded frames go through first.

    Raises:
        DataError: no images, or one cannot be read (see `finedge.data.drop_unreadable`).
    """
    from finedge.runtime.classifier import order, probabilities

    if not items:
        raise DataError("no images to evaluate", expected="at least one")
    scores = np.concatenate([classifier.scores(batch) for batch in _watched(_batches(classifier, items, perturbation=perturbation), len(items))])
    ranked = order(probabilities(scores))[:, :SHOWN]
    p = classifier.tempered(scores)
    labels = np.array([i.label for i in items], dtype=np.intp)
    return Answers(items, labels, ranked, np.take_along_axis(p, ranked, axis=1).astype(np.float32))


def bundle_dataset(bundle: Bundle, data: Path | None = None) -> DataSet:
    """Open a data set for a bundle: `data`, or the images its training recorded; splits as the training cut them.

    Raises:
        UsageError: neither is there.
        DataError: its labels are not the bundle's.
    """
    recorded = bundle.provenance.get("train", {}).get("data", {})
    root = data or recorded.get("root")
    if root is None or (data is None and not Path(root).is_dir()):
        raise UsageError(
            f"{bundle.path} was trained on {root or 'images it does not name'}, which is not here", expected="a folder of images", fix="--data DIR"
        )
    found = open_dataset(Path(root), seed=recorded.get("seed", 0))
    _check_labels(found, bundle)
    return found


def _check_labels(data: DataSet, bundle: Bundle) -> None:
    ours, theirs = bundle.spec.labels, data.labels
    if ours == theirs:
        return
    if len(ours) != len(theirs):
        raise DataError(f"{data.root} has {len(theirs)} classes", expected=f"the {len(ours)} of {bundle.path}", fix="use the data set it was trained for")
    index = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
    raise DataError(
        f"class {index} of {data.root} is '{theirs[index]}'", expected=f"'{ours[index]}' as in {bundle.path}", fix="use the data set it was trained for"
    )


def _batches(classifier: Classifier, items: tuple[Item, ...], *, perturbation: str | None) -> Iterator[NDArray[np.uint8]]:
    """Yield batches of one, prepared in threads a few images ahead (OpenCV and Pillow release the interpreter lock)."""

    def prepared(index: int) -> NDArray[np.uint8]:
        frame = read_image(items[index].path)
        return classifier.prepare([perturb.perturb(frame, perturbation, index=index) if perturbation else frame])

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(items), READ_AHEAD):
            yield from pool.map(prepared, range(start, min(start + READ_AHEAD, len(items))))


def _watched(batches: Iterable[NDArray[np.uint8]], total: int) -> Iterable[NDArray[np.uint8]]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(batches, "evaluate", total=total, console=console, disable=not console.is_terminal)
