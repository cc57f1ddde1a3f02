"""Distillation: a student also learns a teacher's scores (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from finedge.bundle import sha256
from finedge.errors import DataError, UsageError
from finedge.spec import Spec
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.loader import normalise
from finedge.train.models import FineGrained
from finedge.train.run import load_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teacher:
    """A finished run in evaluation mode, on the device of the student."""

    path: Path
    sha256: str
    model: FineGrained
    spec: Spec

    @torch.no_grad()
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the scores [B, num_classes], logits or log-probabilities.

        `frames` are the student's: uint8 [B, H, W, 3] on the device.
        """
        outputs = self.model(normalise(frames, self.spec.preprocess))
        scores: torch.Tensor = outputs[self.spec.main.name]
        return scores

    def to_json(self) -> dict[str, str]:
        """Return plain data for run.json."""
        return {"path": str(self.path.resolve()), "sha256": self.sha256}


def open_teacher(
    path: Path, student: Spec, *, sides: Iterable[int], device: torch.device, digest: str = ""
) -> Teacher:
    """Load the run at `path` as the teacher of a model with the spec `student`.

    Args:
        path: a run.
        student: has the same labels in the same order.
        sides: of the student's training images in pixels.
        device: where both run.
        digest: the sha256 that the teacher's checkpoint must have; empty for any.

    Raises:
        UsageError: other labels, or a size that the teacher cannot take.
        DataError: no run there, or its checkpoint does not have `digest`.
    """
    run = load_run(path)
    checkpoint = sha256(path / CHECKPOINT)
    if digest and checkpoint != digest:
        raise DataError(
            f"{path} is not the teacher that the run began with: sha256 {checkpoint[:12]}",
            expected=digest[:12],
            fix="--teacher RUN, with the folder where it is now",
        )
    if run.spec.labels != student.labels:
        raise UsageError(
            f"the teacher {path} has {len(run.spec.labels)} classes, the data has "
            f"{len(student.labels)}",
            expected="the same labels in the same order",
        )
    teacher = Teacher(path, checkpoint, run.model.to(device).requires_grad_(False), run.spec)
    for side in sorted(set(sides)):
        _require_fit(teacher, side, device)
    return teacher


def distilled(
    loss: torch.Tensor,
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    weight: float,
    temperature: float,
) -> torch.Tensor:
    """Return (1 - weight) * loss + weight * T^2 * KL(teacher || student).

    Both distributions are at temperature T.

    T^2 keeps the size of the gradients at every temperature (section 2 of the paper). `student` and
    `teacher` are float [B, num_classes], logits or log-probabilities: the softmax at T is the same
    for both.
    """
    log_q, log_p = (
        F.log_softmax(scores.float() / temperature, dim=1) for scores in (student, teacher)
    )
    divergence = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return (1 - weight) * loss + weight * temperature**2 * divergence


def _require_fit(teacher: Teacher, side: int, device: torch.device) -> None:
    usual = teacher.spec.preprocess.crop
    try:
        teacher(torch.zeros(1, side, side, 3, dtype=torch.uint8, device=device))
    except RuntimeError as error:
        raise UsageError(
            f"the teacher {teacher.path} cannot take images of {side} px: {error}",
            expected=f"its own size, {usual}",
        ) from error
    if side != usual:
        log.warning("the teacher was trained at %d px and will see %d", usual, side)
