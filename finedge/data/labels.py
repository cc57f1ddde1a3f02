"""Matches the labels of a folder to those of a model, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from finedge.data.names import label_text
from finedge.data.record import DataSet, join_names
from finedge.errors import DataError


def with_labels(data: DataSet, labels: Sequence[str], *, owner: object) -> DataSet:
    """Return a data set with the labels of a model, matched by name; it may lack some of them.

    Raises:
        DataError: images with a label that the model does not have.
    """
    places = {label_text(label): place for place, label in enumerate(labels)}
    used = {item.label for items in data.splits.values() for item in items}
    names = [label_text(label) for label in data.labels]
    unknown = sorted(names[label] for label in used if names[label] not in places)
    if unknown:
        what = f"{data.root} has images of {len(unknown)} class(es) that {owner} does not know"
        raise DataError(
            f"{what}: {join_names(unknown, shown=5)}",
            expected=f"some of its {len(labels)} labels: {join_names(labels, shown=5)}",
            fix="use the data set it was trained for, or move these classes away",
        )
    present = {places[names[label]] for label in used}
    lacking = [label for place, label in enumerate(labels) if place not in present]
    if lacking:
        note = f"{len(lacking)} of {len(labels)} classes have no image in it: {join_names(lacking)}"
        data = replace(data, notes=(*data.notes, note))
    splits = {
        split: tuple(replace(item, label=places[names[item.label]]) for item in items)
        for split, items in data.splits.items()
    }
    return replace(data, labels=tuple(labels), splits=splits)
