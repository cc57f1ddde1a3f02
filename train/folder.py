"""The folder of a run: what may exist before a training, and how a run appears in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from finedge.errors import UsageError
from finedge.files import writable_place, write_text
from finedge.temporary_files import OLD_TEMPORARY_NAME, TEMPORARY_NAME
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.run import METRICS, RECORD, SPLITS

log = logging.getLogger(__name__)

# In the order they are first written in: the record comes last, so that it marks a whole run.
FILES = (METRICS, CHECKPOINT, SPLITS, RECORD)


def require_new(out: Path) -> None:
    """Make sure that a new run can be written to `out`; nothing is changed.

    A run that was killed before its record was written has no finished epoch: it may be
    overwritten.

    Raises:
        UsageError: a run, a file, or files of another kind are there.
        SystemProblem: nothing can be written there.
    """
    if (out / RECORD).is_file():
        raise UsageError(
            f"{out} holds a run",
            expected="a new folder",
            fix="--resume continues it; or choose another --out",
        )
    if out.exists() and not (out.is_dir() and _is_half_made(out)):
        raise UsageError(
            f"{out} exists and is not a run",
            expected="a new folder",
            fix="choose another --out; nothing was changed",
        )
    writable_place(out, option="--out")


def begin(out: Path, record: Mapping[str, str], *, save: Callable[[], None]) -> None:
    """Write a new run: metrics and checkpoint of epoch 0 by `save`, then the texts of `record`.

    A kill or a full disk at any moment leaves a folder that `require_new` accepts, or the whole
    run.
    """
    half_made = list(out.iterdir()) if out.is_dir() else []
    if half_made:
        log.warning("%s holds a run that was killed before its first epoch; it starts again", out)
    # The metrics go last: `_is_half_made` knows such a folder by them.
    for path in sorted(half_made, key=lambda p: p.name == METRICS):
        path.unlink(missing_ok=True)
    save()
    for name in (SPLITS, RECORD):
        write_text(out / name, record[name])


def _is_half_made(out: Path) -> bool:
    """Tell whether a folder without a record is empty, or holds only the beginning of a run."""
    names = {path.name for path in out.iterdir() if not _is_leftover(path.name)}
    if not names:
        return True
    # The metrics are the first file, and empty until an epoch is finished. Metrics with content
    # belong to a training, even if its record is missing.
    metrics = out / METRICS
    return names <= set(FILES) and metrics.is_file() and metrics.stat().st_size == 0


def _is_leftover(name: str) -> bool:
    """Tell whether a killed process left a file of this name while it wrote a file of a run."""
    match = TEMPORARY_NAME.fullmatch(name) or OLD_TEMPORARY_NAME.fullmatch(name)
    return match is not None and match["name"] in FILES
