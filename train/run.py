"""The run: the folder that training writes and that evaluation and export read.

run.json                  spec, model, resolved recipe, data set, commands; written last, so it
                          marks a whole run
split.json                the images of every split, by content: [path, label, sha256]
metrics.jsonl             one line for each epoch
checkpoint.safetensors    the weights (see checkpoint.py)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finedge.data import (
    MAX_UNREADABLE,
    DataSet,
    NewImages,
    StoredSplit,
    log_dataset,
    log_match,
    match_split,
    read_folder,
    split_of_dataset,
    with_labels,
)
from finedge.data.record import join_names
from finedge.data.stored_split import read_split
from finedge.errors import DataError, UsageError
from finedge.files import write_text
from finedge.spec import Spec
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.checkpoint import load_weights
from finedge.train.models import FineGrained, build_model, entry
from finedge.train.record import COPY, FORMAT, read_run_json

log = logging.getLogger(__name__)

RECORD = "run.json"
SPLITS = "split.json"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Run:
    """A loaded run.

    `model` is in evaluation mode on the CPU. It has the weights of the last epoch, or their moving
    average if the recipe keeps one.
    """

    path: Path
    spec: Spec
    model: FineGrained
    record: Mapping[str, Any]


def load_run(path: Path) -> Run:
    """Open a run.

    >>> run = load_run(Path("runs/birds"))
    >>> run.model(torch.zeros(1, 3, 224, 224))[run.spec.main.name].shape
    torch.Size([1, 200])

    Raises:
        DataError: no run there, a newer format, a damaged file, or weights that do not fit.
    """
    path = Path(path)
    record = read_record(path)
    spec = Spec.from_json(record["spec"])
    model = rebuild(record, path=path)
    epoch, epochs = load_weights(path / CHECKPOINT, model), record["recipe"]["epochs"]
    if epoch < epochs:
        log.warning(
            "%s stopped after epoch %d of %d; finedge train --out %s --resume continues it",
            path,
            epoch,
            epochs,
            path,
        )
    return Run(path, spec, model.eval(), record)


def rebuild(record: Mapping[str, Any], *, path: Path) -> FineGrained:
    """Build the model of a run's record, without its weights.

    An option that the record lacks has the value of the time before it existed, not its default
    (`FineGrained.former`).

    Raises:
        DataError: this version does not know the model; `path` is the run.
    """
    model, classes = record["model"], len(record["spec"]["labels"])
    try:
        return build_model(
            model["name"],
            num_classes=classes,
            backbone=model["backbone"],
            weights="none",
            **{**entry(model["name"]).former, **model["options"]},
        )
    except (UsageError, TypeError, ValueError, RuntimeError) as error:
        fault = error.what if isinstance(error, UsageError) else error
        raise DataError(
            f"{path / RECORD}: the model cannot be built: {fault}",
            expected="a model, backbone and options of this version",
            fix="update finedge on this machine, or copy the whole folder again",
        ) from error


def read_record(path: Path) -> dict[str, Any]:
    """Read run.json; a missing, damaged or newer one raises `DataError`."""
    try:
        return read_run_json(path / RECORD)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path} is not a run: no {RECORD}",
            expected="a folder made by finedge train",
            fix="finedge train --data DIR --out RUN",
        ) from None


def record_texts(record: Mapping[str, Any], *, data: DataSet) -> dict[str, str]:
    """Return the texts of split.json and run.json, by name; nothing is written."""
    return {SPLITS: split_of_dataset(data).to_text(), RECORD: _text(record)}


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write run.json."""
    write_text(path / RECORD, _text(record))


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, **record}, indent=1)


def recorded_split(path: Path) -> StoredSplit:
    """Return the split a run was trained on.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        stored = read_split(path / SPLITS)
    except FileNotFoundError:
        raise DataError(f"{path / SPLITS} is missing", fix=COPY) from None
    # Version 0.1 wrote the cut to run.json.
    cut = stored.cut if stored.cut is not None else read_record(path)["data"].get("cut")
    return replace(stored, cut=cut)


def recorded_data(
    path: Path,
    *,
    root: Path | None = None,
    new_images: NewImages = "ignore",
    exact: bool = False,
    whole: bool = False,
) -> DataSet:
    """Return the data set a run was trained on, with its stored splits.

    Args:
        path: the run.
        root: where the images are now, if they moved.
        new_images: the split of images that the stored splits do not have.
        exact: return what a resumed training needs: the same images in the same order, under the
            recorded labels.
        whole: do not cut another data set that has no splits (see `finedge.data.match`).

    Raises:
        DataError: no run there, its images are gone (with `exact`: more than 2 % of them), or
            `root` has labels that the run does not know.
    """
    record = read_record(path)
    images = root or Path(record["data"]["root"])
    if not images.is_dir():
        raise DataError(
            f"the images of {path} are not in {images}",
            expected="the folder the run was trained on",
            fix="--data DIR",
        )
    folder = with_labels(read_folder(images), record["spec"]["labels"], owner=path)
    stored, seed = recorded_split(path), record["data"].get("seed", 0)
    data = match_split(folder, stored, new=new_images, seed=seed, exact=exact, whole=whole)
    log_dataset(data)
    log_match(data)
    if exact:
        _refuse_lost(data, sum(1 for _ in stored), path)
    return data


def _refuse_lost(data: DataSet, stored: int, path: Path) -> None:
    lists = data.match.missing.values() if data.match else ()
    missing = [name for names in lists for name in names]
    if len(missing) > MAX_UNREADABLE * stored:
        raise DataError(
            f"{len(missing)} of the {stored} images that {path} was trained on are not in "
            f"{data.root}: {join_names(missing)}",
            expected=f"at most {MAX_UNREADABLE:.0%} missing",
            fix="copy them again; or start a new training on the images that are there",
        )
