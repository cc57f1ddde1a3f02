"""The outputs of DETR's family: a few hundred boxes, each of another thing."""

from __future__ import annotations

import numpy as np

from finedge.runtime.find.detector.candidates import (
    Candidates,
    Outputs,
    Size,
    class_numbers,
    from_middles,
    sigmoid,
)

SIZES = "orig_target_sizes"  # the second input of RT-DETR and D-FINE


def is_rtdetr(outputs: Outputs, size: Size) -> bool:
    """Tell labels [1, Q], boxes [1, Q, 4] and scores [1, Q]: exported with its postprocessor."""
    return _ranks(outputs) == {"labels": 2, "boxes": 3, "scores": 2}


def decode_rtdetr(outputs: Outputs, size: Size) -> Candidates:
    """Decode RT-DETR and D-FINE as their repositories export them: corners in pixels."""
    labels = class_numbers(outputs["labels"][0])
    boxes = np.asarray(outputs["boxes"][0], np.float32)
    return Candidates(boxes, np.asarray(outputs["scores"][0], np.float32), labels)


def is_logits(outputs: Outputs, size: Size) -> bool:
    """Tell logits [1, Q, classes] and pred_boxes [1, Q, 4]."""
    return _ranks(outputs).items() >= {"logits": 3, "pred_boxes": 3}.items()


def decode_logits(outputs: Outputs, size: Size) -> Candidates:
    """Decode RT-DETR and D-FINE as transformers exports them: a sigmoid for each class."""
    return _decoded(outputs, "logits", "pred_boxes", size)


def is_rfdetr(outputs: Outputs, size: Size) -> bool:
    """Tell dets [1, Q, 4] and labels [1, Q, classes]."""
    return _ranks(outputs).items() >= {"dets": 3, "labels": 3}.items()


def decode_rfdetr(outputs: Outputs, size: Size) -> Candidates:
    """Decode RF-DETR: a sigmoid for each class. The classes of COCO are numbered 1 to 90."""
    return _decoded(outputs, "labels", "dets", size)


def _decoded(outputs: Outputs, logits: str, boxes: str, size: Size) -> Candidates:
    scores = sigmoid(np.asarray(outputs[logits][0], np.float32))
    corners = from_middles(np.asarray(outputs[boxes][0], np.float32))
    whole = np.array([size.width, size.height] * 2, np.float32)
    return Candidates(corners * whole, scores)


def _ranks(outputs: Outputs) -> dict[str, int]:
    return {name: array.ndim for name, array in outputs.items()}
