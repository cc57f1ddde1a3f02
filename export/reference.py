"""The model in PyTorch, as the graph has it, and the frames on which the two are compared."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finedge.errors import GateError
from finedge.export.passes.frame import resize_head
from finedge.export.to_onnx import FramesToOutputs
from finedge.golden import orientations, synthetic_frame
from finedge.image import read_image
from finedge.preprocess import preprocess_batch
from finedge.spec import Preprocess
from finedge.train.run import Run, recorded_data

log = logging.getLogger(__name__)

PARITY_IMAGES = 8
GREY_LEVELS = 1  # Pillow and OpenCV resize in fixed point, the graph in float32


class FramedReference(nn.Module):
    """A model in PyTorch after the first nodes of a framed graph, which resize and crop.

    It maps uint8 [B, height, width, 3] to the model's outputs, then its taps.
    """

    def __init__(self, reference: FramesToOutputs, framed: onnx.ModelProto) -> None:
        super().__init__()
        self.reference = reference
        content = resize_head(framed).SerializeToString()
        self._head = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def crops(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what the graph crops of frames: uint8 [B, crop, crop, 3]."""
        (planes,) = self._head.run(None, {self._head.get_inputs()[0].name: frames})
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)).astype(np.uint8)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return what the reference makes of the crops."""
        results: tuple[Tensor, ...] = self.reference(torch.from_numpy(self.crops(frames.numpy())))
        return results


def reference_model(
    run: Run, model: onnx.ModelProto, *, frames: NDArray[np.uint8], preprocess: Preprocess
) -> nn.Module:
    """Return a run's model in PyTorch, to compare `model` with.

    Where the graph takes whole frames, the reference gets the graph's own crops. Those are checked
    on `frames` first.
    """
    reference = FramesToOutputs(run.model, run.spec.preprocess).eval()
    if preprocess.frame is None:
        return reference
    framed = FramedReference(reference, model)
    log.info(
        "the graph's crops differ from preprocess() by at most %d grey level(s)",
        check_crops(framed, frames, preprocess=run.spec.preprocess),
    )
    return framed


def check_crops(
    reference: FramedReference, frames: NDArray[np.uint8], *, preprocess: Preprocess
) -> int:
    """Compare the graph's crops with those of `finedge.preprocess`.

    Args:
        reference: holds the first nodes of the graph.
        frames: uint8 [N, height, width, 3].
        preprocess: the preprocessing of the run, without a frame size.

    Returns:
        the largest difference, in grey levels.

    Raises:
        GateError: it is more than 1.
    """
    crops = preprocess_batch(frames, preprocess, count=len(frames))
    worst = int(np.abs(reference.crops(frames) - crops.astype(np.int16)).max())
    if worst > GREY_LEVELS:
        raise GateError(
            f"the graph's crop differs from preprocess() by {worst} grey levels",
            expected=f"at most {GREY_LEVELS}",
        )
    return worst


def parity_frames(
    run: Run, data: Path | None, *, preprocess: Preprocess
) -> tuple[NDArray[np.uint8], str]:
    """Return 8 preprocessed validation images by a fixed seed, uint8 [8, H, W, 3]; and their kind.

    The kind is "val". Without validation images it is "golden": the golden frame, turned and
    mirrored.
    """
    dataset = recorded_data(run.path, root=data)
    items = dataset.splits.get("val", ())
    if not items:
        log.warning(
            "%s has no validation images: the golden frame is compared, turned and mirrored",
            dataset.root,
        )
        turned = orientations(synthetic_frame())
        return preprocess_batch(turned, preprocess, count=len(turned)), "golden"
    sample = random.Random(0).sample(items, min(PARITY_IMAGES, len(items)))
    frames = (read_image(item.path) for item in sample)
    return preprocess_batch(frames, preprocess, count=len(sample)), "val"
