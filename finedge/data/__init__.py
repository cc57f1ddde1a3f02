"""Labelled images on disk: layout, labels, splits, and the split that training used.

It may import `finedge/*.py` and `finedge/image`, never torch: the device evaluates with it too.
Training, calibration, export, evaluation, verification, the benchmark and the file source call it.

- `open_dataset` opens a folder to train on; `read_folder` reads it without cutting splits.
- `split_of_dataset` records which images training used; `match_split` finds them again.
- `select_images` returns the images of a split that a number may be measured on.
"""

from finedge.data.digest import content_digest
from finedge.data.evaluation import EvaluationSplit, select_images
from finedge.data.labels import with_labels
from finedge.data.layouts import LAYOUTS
from finedge.data.match import NewImages, log_match, match_split
from finedge.data.open import (
    MAX_UNREADABLE,
    drop_unreadable,
    log_dataset,
    open_dataset,
    read_folder,
)
from finedge.data.record import SPLITS, DataSet, Item, LeftOut, Match
from finedge.data.stored_split import StoredSplit, split_of_dataset

__all__ = [
    "LAYOUTS",
    "MAX_UNREADABLE",
    "SPLITS",
    "DataSet",
    "EvaluationSplit",
    "Item",
    "LeftOut",
    "Match",
    "NewImages",
    "StoredSplit",
    "content_digest",
    "drop_unreadable",
    "log_dataset",
    "log_match",
    "match_split",
    "open_dataset",
    "read_folder",
    "select_images",
    "split_of_dataset",
    "with_labels",
]
