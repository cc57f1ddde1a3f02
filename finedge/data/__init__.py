"""Labelled images on disk: layout, labels, splits, and the split that training used.

No torch: the device evaluates with it too.
"""

from finedge.data.digest import content_digest
from finedge.data.evaluated import Evaluated, evaluated
from finedge.data.labels import with_labels
from finedge.data.layouts import LAYOUTS
from finedge.data.matched import NewImages, matched, say_match
from finedge.data.open import (
    MAX_UNREADABLE,
    drop_unreadable,
    open_dataset,
    read_folder,
    say,
)
from finedge.data.record import SPLITS, DataSet, Item, LeftOut, Match
from finedge.data.stored import StoredSplit, split_of_dataset

__all__ = [
    "LAYOUTS",
    "MAX_UNREADABLE",
    "SPLITS",
    "DataSet",
    "Evaluated",
    "Item",
    "LeftOut",
    "Match",
    "NewImages",
    "StoredSplit",
    "content_digest",
    "drop_unreadable",
    "evaluated",
    "matched",
    "open_dataset",
    "read_folder",
    "say",
    "say_match",
    "split_of_dataset",
    "with_labels",
]
