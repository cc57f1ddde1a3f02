"""What a classifier answers to labelled images, on the same path as a camera's frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finedge.data import Item
from finedge.errors import DataError
from finedge.image import read_image
from finedge.measure import accuracy_record
from finedge.progress import watched
from finedge.runtime.backend import HasExits
from finedge.synthetic.perturb import perturb

if TYPE_CHECKING:
    from finedge.runtime.classifier import Classifier

READ_AHEAD = 32  # images decoded at a time
RANKED = 5  # classes kept of each answer

# The network's input, and the frames that it was made of where they are looked at again.
Batch = tuple[NDArray[np.uint8], tuple[NDArray[np.uint8], ...]]


@dataclass(frozen=True)
class Answers:
    """What a classifier answered to labelled images.

    Attributes:
        items: the images.
        labels: their true classes, int [n].
        ranked: the classes it named, the best first, int [n, k]; k is 5, or all if there are fewer.
        probabilities: the probabilities of those classes, float32 [n, k].
        uncalibrated: the probability of the first class at temperature 1, float32 [n].
        taken: the early exit at which each image left, int [n]; the number of exits is the end of
            the model. None where the whole model ran.
    """

    items: tuple[Item, ...]
    labels: NDArray[np.intp]
    ranked: NDArray[np.intp]
    probabilities: NDArray[np.float32]
    uncalibrated: NDArray[np.float32]
    taken: NDArray[np.intp] | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the first named class is the true one: bool [n]."""
        return np.equal(self.ranked[:, 0], self.labels)

    def of(self, mask: NDArray[np.bool_]) -> Answers:
        """Return the answers to some of the images; `mask` is bool [n]."""
        items = tuple(item for item, chosen in zip(self.items, mask, strict=True) if chosen)
        return Answers(
            items,
            self.labels[mask],
            self.ranked[mask],
            self.probabilities[mask],
            self.uncalibrated[mask],
            None if self.taken is None else self.taken[mask],
        )

    def record(self) -> dict[str, object]:
        """Return top1, top5, n and wilson95."""
        among_first = (self.ranked == self.labels[:, None]).any(axis=1)
        top1, top5 = int(self.correct.sum()), int(among_first.sum())
        return accuracy_record(top1, top5, len(self.items))


def predict(
    classifier: Classifier, items: tuple[Item, ...], *, perturbation: str | None = None
) -> Answers:
    """Classify labelled images one by one, as a camera's frames are.

    A progress bar is drawn where stderr is a terminal.

        items = bundle_dataset(bundle).split("test")
        with Classifier.open(bundle) as classifier:
            print(predict(classifier, items).record())

    Args:
        classifier: an open classifier.
        items: the images and their true classes.
        perturbation: a name in `finedge.synthetic.perturb`; the decoded frames go through it first.

    Raises:
        DataError: no images, or one cannot be read (see `finedge.data.drop_unreadable`).
    """
    from finedge.runtime.classifier import order, probabilities

    if not items:
        raise DataError("no images to evaluate", expected="at least one")
    batches = _batches(classifier, items, perturbation=perturbation)
    bar = watched(batches, "evaluate", total=len(items))
    scores, taken = _scores(classifier, bar)
    p = classifier.probabilities(scores)
    ranked = order(p)[:, :RANKED]
    ranked_p = np.take_along_axis(p, ranked, axis=1)
    labels = np.array([item.label for item in items], dtype=np.intp)
    uncalibrated = probabilities(scores).max(axis=1).astype(np.float32)
    return Answers(items, labels, ranked, ranked_p.astype(np.float32), uncalibrated, taken)


def _scores(
    classifier: Classifier, batches: Iterable[Batch]
) -> tuple[NDArray[np.float32], NDArray[np.intp] | None]:
    """Return the scores of all batches [n, classes], and where each image left early, if any can.

    `taken` of the session is that of its last batch, so it is read after each.
    """
    session, scores, taken = classifier.session, [], []
    for pixels, frames in batches:
        scores.append(classifier.scores(pixels, frames=frames))
        if isinstance(session, HasExits):
            taken.append(session.taken)
    return np.concatenate(scores), np.concatenate(taken) if taken else None


def _batches(
    classifier: Classifier, items: tuple[Item, ...], *, perturbation: str | None
) -> Iterator[Batch]:
    """Yield batches of one image, prepared in threads a few images ahead.

    OpenCV and Pillow release the interpreter lock, so the threads run side by side.
    """

    def prepare(index: int) -> Batch:
        frame = read_image(items[index].path)
        if perturbation:
            frame = perturb(frame, perturbation, index=index)
        frames = (frame,) if classifier.second_look else ()
        return classifier.prepare([frame]), frames

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(items), READ_AHEAD):
            yield from pool.map(prepare, range(start, min(start + READ_AHEAD, len(items))))
