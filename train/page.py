"""The page of a run: learning curves, and the classes that it confuses on a split."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finedge.confusion.counts import Confusion
from finedge.errors import SystemProblem
from finedge.files import write_text
from finedge.pages.extra import require_jinja2
from finedge.spec import Spec
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.checkpoint import finished_epochs
from finedge.train.record import read_metrics
from finedge.train.run import METRICS, Run
from finedge.train.trainer import Trainer

log = logging.getLogger(__name__)

PAGE = "page.html"  # in the folder of the run


def trained(trainer: Trainer) -> dict[str, Any]:
    """Train the epochs that are left, write the page, and return what `finedge train` prints.

    The result names the page only if it was written.
    """
    trainer.run()
    page = _write_trained_page(trainer)
    return {**trainer.result(), **({"page": str(page)} if page else {})}


def _write_trained_page(trainer: Trainer) -> Path | None:
    """Write the page of a finished training into its folder, and return its path.

    A training never fails because of its page: the reason is logged, and the result is None. It is
    None, too, where no epoch was trained, and in processes other than the first.
    """
    if not trainer.world.writer or trainer.val is None:
        return None
    path = trainer.job.path / PAGE
    try:
        require_jinja2(f"the page {path}")
        text = _page(path.parent, trainer.job.spec, rows=trainer.rows, split="val", of=trainer.val)
        write_text(path, text)
    except SystemProblem as error:
        log.info("%s", error)
        return None
    except Exception as error:
        log.warning("%s was not written: %s", path, error)
        return None
    return path


def write_run_page(
    path: Path, run: Run, *, split: str, confusion: Confusion, warnings: Sequence[str] = ()
) -> None:
    """Write the page of a run that was evaluated on a split.

    Args:
        path: the HTML file.
        run: the run; its metrics give the learning curves.
        split: train, val or test.
        confusion: the run's answers to that split.
        warnings: what makes the accuracy doubtful.
    """
    epochs = finished_epochs(run.path / CHECKPOINT)
    rows = read_metrics(run.path / METRICS, epochs=epochs)
    text = _page(run.path, run.spec, rows=rows, split=split, of=confusion, warnings=warnings)
    write_text(path, text)


def _page(
    run: Path,
    spec: Spec,
    *,
    rows: Sequence[Mapping[str, Any]],
    split: str,
    of: Confusion,
    warnings: Sequence[str] = (),
) -> str:
    from finedge.pages.answers import AnswersPage, answers_page

    network = f"{spec.model} on {spec.backbone}, {spec.input.width} px, {len(spec.labels)} classes"
    epochs = f"{len(rows)} epoch" + ("s" if len(rows) != 1 else "")
    about = f"{network}. {epochs} trained. Measured in PyTorch on the {split} split."
    return answers_page(AnswersPage(run.resolve().name, about, of, warnings, rows))
