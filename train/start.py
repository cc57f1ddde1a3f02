"""The weights that a training starts from, where they are those of another run (fine-tuning)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from finedge.errors import UsageError
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.checkpoint import load_weights
from finedge.train.models import FineGrained
from finedge.train.run import RECORD, read_record, rebuild

log = logging.getLogger(__name__)


def is_run(weights: str) -> bool:
    """Tell whether `--weights` names the folder of a run."""
    return (Path(weights) / RECORD).is_file()


def start_from(model: FineGrained, run: Path, *, name: str, labels: Sequence[str]) -> None:
    """Load the weights of a run into a new model, in place.

    All of them where the run has the same model and labels, and layers of the same shapes. Else
    those of the backbone alone.

    Args:
        model: the new one.
        run: a folder of `finedge train`.
        name: of the new model, as in `finedge models`.
        labels: of the new training, in the order of the classes.

    Raises:
        UsageError: the run has another backbone.
        DataError: the run is damaged.
    """
    record = read_record(run)
    source = rebuild(record, path=run)
    epoch = load_weights(run / CHECKPOINT, source)
    same = record["model"]["name"] == name and list(record["spec"]["labels"]) == list(labels)
    if same and _shapes(source) == _shapes(model):
        model.load_state_dict(source.state_dict())
        log.info("all weights start from %s after epoch %d", run, epoch)
        return
    if _shapes(source.backbone) != _shapes(model.backbone):
        raise UsageError(
            f"--weights {run}: its backbone is {record['model']['backbone']}",
            expected=f"a run with the same layers in its backbone {model.backbone.name}",
            fix="give the same --backbone, or the weights of a file",
        )
    model.backbone.load_state_dict(source.backbone.state_dict())
    log.info(
        "the backbone starts from %s after epoch %d; other layers start untrained, because model, "
        "labels or shapes differ",
        run,
        epoch,
    )


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
