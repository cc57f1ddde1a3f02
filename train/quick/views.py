"""The views of a data set whose maps are cached: pixels of evaluation, and augmented ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finedge.data import DataSet
from finedge.spec import Preprocess
from finedge.train.loader import EvaluationImages, TrainingImages
from finedge.train.quick.cache_record import view_recipe
from finedge.train.recipe import Recipe

EVALUATION = 0  # the view that evaluation sees
AUGMENTED = "train"  # the split that has other views too


@dataclass(frozen=True)
class ViewImages:
    """The images of a split in one view: `view` is 0 for evaluation, 1 to K for augmented ones."""

    split: str
    view: int
    images: EvaluationImages | TrainingImages


def view_images(
    data: DataSet,
    *,
    preprocess: Preprocess,
    recipe: Recipe,
    views: int,
    splits: Sequence[str],
) -> tuple[ViewImages, ...]:
    """Return the views of the splits that have images; view K is augmented as epoch K would be."""
    present = {split: data.splits[split] for split in splits if data.splits.get(split)}
    plain = [
        ViewImages(split, EVALUATION, EvaluationImages(items, preprocess))
        for split, items in present.items()
    ]
    seeded = view_recipe(recipe)
    augmented = [
        ViewImages(AUGMENTED, view, TrainingImages(items, preprocess, seeded, view))
        for split, items in present.items()
        if split == AUGMENTED
        for view in range(1, views + 1)
    ]
    return (*plain, *augmented)
