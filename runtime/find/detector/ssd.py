"""The outputs of SSD and of torchvision's and TensorFlow's detectors: final boxes, after NMS."""

from __future__ import annotations

import numpy as np

from finedge.runtime.find.detector.candidates import Candidates, Outputs, Size, class_numbers

TENSORFLOW = ("detection_boxes", "detection_classes", "detection_scores")


def is_torchvision(outputs: Outputs, size: Size) -> bool:
    """Tell boxes [N, 4], labels [N] (whole numbers) and scores [N], whatever their names."""
    kinds = sorted((array.ndim, array.dtype.kind) for array in outputs.values())
    return kinds == [(1, "f"), (1, "i"), (2, "f")]


def decode_torchvision(outputs: Outputs, size: Size) -> Candidates:
    """Decode torchvision's SSD, RetinaNet, FCOS and Faster R-CNN: corners in pixels."""
    by_kind = {(array.ndim, array.dtype.kind): array for array in outputs.values()}
    boxes, scores = (np.asarray(by_kind[rank, "f"], np.float32) for rank in (2, 1))
    return Candidates(boxes, scores, class_numbers(by_kind[1, "i"]))


def is_zoo(outputs: Outputs, size: Size) -> bool:
    """Tell bboxes [1, N, 4], labels [1, N] and scores [1, N]."""
    ranks = {name: array.ndim for name, array in outputs.items()}
    return ranks == {"bboxes": 3, "labels": 2, "scores": 2}


def decode_zoo(outputs: Outputs, size: Size) -> Candidates:
    """Decode the ONNX model zoo's SSD (`ssd-10`): corners as fractions of the input."""
    boxes = np.asarray(outputs["bboxes"][0], np.float32) * _whole(size)
    labels = class_numbers(outputs["labels"][0])
    return Candidates(boxes, np.asarray(outputs["scores"][0], np.float32), labels)


def is_tensorflow(outputs: Outputs, size: Size) -> bool:
    """Tell detection_boxes [1, N, 4], detection_classes [1, N] and detection_scores [1, N]."""
    return set(TENSORFLOW) <= {name.partition(":")[0] for name in outputs}


def decode_tensorflow(outputs: Outputs, size: Size) -> Candidates:
    """Decode the zoo's `ssd_mobilenet_v1`: top, left, bottom, right as fractions of the input."""
    by_name = {name.partition(":")[0]: array for name, array in outputs.items()}
    boxes, classes, scores = (np.asarray(by_name[name][0], np.float32) for name in TENSORFLOW)
    return Candidates(boxes[:, [1, 0, 3, 2]] * _whole(size), scores, class_numbers(classes))


def _whole(size: Size) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([size.width, size.height] * 2, np.float32)
