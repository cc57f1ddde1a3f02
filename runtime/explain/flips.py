"""The pictures whose answer INT8 changes, each with what float32 and INT8 look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finedge.bundle import Bundle
from finedge.data import Item
from finedge.image import read_image
from finedge.measure import mcnemar
from finedge.runtime.classifier import Classifier
from finedge.runtime.evaluate.predict import Answers, predict
from finedge.runtime.explain.explainer import Explained, Explainer
from finedge.runtime.explain.folder import explained_record
from finedge.runtime.explain.strip import Tile, tiles
from finedge.runtime.explain.views import ExplainOptions

VARIANTS = ("fp32", "int8")
BACKEND = "onnxruntime"  # the one that shows what is inside a model


@dataclass(frozen=True)
class Flips:
    """The images that got another answer, those that INT8 lost first.

    Attributes:
        items: the images.
        n: how many images were classified.
        lost: how many INT8 answers wrongly and float32 rightly.
        gained: how many INT8 answers rightly and float32 wrongly.
    """

    items: tuple[Item, ...]
    n: int
    lost: int
    gained: int

    def record(self) -> dict[str, Any]:
        """Return the counts, and McNemar's p that both variants are equally good."""
        return {
            "n": self.n,
            "flips": len(self.items),
            "lost": self.lost,
            "gained": self.gained,
            "mcnemar_p": round(mcnemar(self.lost, self.gained), 6),
        }


@dataclass(frozen=True)
class FlippedImage:
    """One image, explained in both variants."""

    item: Item
    float32: Explained
    int8: Explained

    def heading(self, labels: Sequence[str]) -> str:
        """Return the true class and both answers."""
        answers = zip(("FP32", "INT8"), (self.float32, self.int8), strict=True)
        parts = [f"{name}: {e.top[0].label} {100 * e.top[0].p:.1f} %" for name, e in answers]
        return f"{labels[self.item.label]}, {', '.join(parts)}"

    def record(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the true class, and what both variants answered and looked at."""
        path = self.item.path
        return {
            "image": f"{path.parent.name}/{path.name}",
            "truth": labels[self.item.label],
            "fp32": explained_record(self.float32),
            "int8": explained_record(self.int8),
        }

    def tiles(self) -> list[Tile]:
        """Return the crop, and each view in float32 and, beside it, in INT8."""
        crop, *float_tiles = tiles(self.float32)
        _, *int8_tiles = tiles(self.int8)
        pairs = zip(float_tiles, int8_tiles, strict=True)
        return [crop, *(tile for pair in pairs for tile in map(_titled, VARIANTS, pair))]


def find_flips(bundle: Bundle, items: tuple[Item, ...]) -> Flips:
    """Classify images in float32 and in INT8 on this machine.

    Raises:
        BundleError: the bundle has no INT8.
    """
    first, second = (_answers(bundle, items, variant=variant) for variant in VARIANTS)
    changed = np.flatnonzero(first.ranked[:, 0] != second.ranked[:, 0])
    lost, gained = first.correct & ~second.correct, second.correct & ~first.correct
    # Lost images come first, then gained ones; among equals, where float32 was the most sure.
    order = sorted(changed, key=lambda i: (~lost[i], ~gained[i], -first.probabilities[i, 0]))
    return Flips(tuple(items[i] for i in order), len(items), int(lost.sum()), int(gained.sum()))


def explain_flips(
    bundle: Bundle, items: Sequence[Item], options: ExplainOptions
) -> Iterator[FlippedImage]:
    """Yield each image with what both variants look at."""
    explainers = [Explainer(bundle, variant=variant) for variant in VARIANTS]
    for item in items:
        image = read_image(item.path)
        yield FlippedImage(item, *(explainer(image, options) for explainer in explainers))


def _answers(bundle: Bundle, items: tuple[Item, ...], *, variant: str) -> Answers:
    with Classifier.open(bundle, variant=variant, backend=BACKEND) as classifier:
        return predict(classifier, items)


def _titled(variant: str, tile: Tile) -> Tile:
    return replace(tile, title=f"{variant.upper()}: {tile.title}")
