"""YOLO's outputs: one tensor with a row or a column for each cell of three or four grids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.find.detector.candidates import (
    Candidates,
    Outputs,
    Size,
    class_numbers,
    from_middles,
)

STRIDES = (8, 16, 32)
STRIDES_P6 = (8, 16, 32, 64)  # MegaDetector v5, YOLOv5 P6
END_TO_END = 1000  # a model without suppression has thousands of boxes


def is_yolox(outputs: Outputs, size: Size) -> bool:
    """Tell [1, N, 5 + classes] with one box for each cell."""
    shape = _main(outputs).shape
    return _is_rows(shape) and shape[1] == cells(size, STRIDES)


def decode_yolox(outputs: Outputs, size: Size) -> Candidates:
    """Decode YOLOX (Ge et al., 2021): `export_onnx.py` leaves the grids to the reader.

    A model exported with `--decode_in_inference` is told by its values: pixels of the input, where
    the raw ones are a few cells.
    """
    rows = np.asarray(_main(outputs)[0], np.float32)
    boxes = rows[:, :4]
    if boxes[:, :2].max() < max(size.height, size.width) / 8 or boxes[:, 2:].min() < 0:
        grid, stride = grids(size, STRIDES)
        middles = (boxes[:, :2] + grid) * stride
        boxes = np.concatenate([middles, np.exp(np.minimum(boxes[:, 2:], 20)) * stride], axis=1)
    return Candidates(from_middles(boxes), rows[:, 4:5] * rows[:, 5:])


def is_yolov5(outputs: Outputs, size: Size) -> bool:
    """Tell [1, N, 5 + classes] with three boxes for each cell."""
    shape = _main(outputs).shape
    counts = (3 * cells(size, strides) for strides in (STRIDES, STRIDES_P6))
    return _is_rows(shape) and shape[1] in counts


def decode_yolov5(outputs: Outputs, size: Size) -> Candidates:
    """Decode YOLOv5 and MegaDetector v5: boxes in pixels, objectness times class."""
    rows = np.asarray(_main(outputs)[0], np.float32)
    return Candidates(from_middles(rows[:, :4]), rows[:, 4:5] * rows[:, 5:])


def is_yolov8(outputs: Outputs, size: Size) -> bool:
    """Tell [1, 4 + classes, N]: the columns are boxes, and there is no objectness."""
    shape = _main(outputs).shape
    return len(shape) == 3 and shape[0] == 1 and shape[1] > 4 and shape[2] == cells(size, STRIDES)


def decode_yolov8(outputs: Outputs, size: Size) -> Candidates:
    """Decode YOLOv8 and what follows its form: boxes in pixels, a score for each class."""
    rows = np.asarray(_main(outputs)[0], np.float32).T
    return Candidates(from_middles(rows[:, :4]), rows[:, 4:])


def is_end_to_end(outputs: Outputs, size: Size) -> bool:
    """Tell [1, N, 6]: few boxes that are final."""
    shape = _main(outputs).shape
    return len(shape) == 3 and shape[0] == 1 and shape[2] == 6 and shape[1] <= END_TO_END


def decode_end_to_end(outputs: Outputs, size: Size) -> Candidates:
    """Decode YOLOv10 and YOLO26: corners in pixels, score, class."""
    rows = np.asarray(_main(outputs)[0], np.float32)
    return Candidates(rows[:, :4], rows[:, 4], class_numbers(rows[:, 5]))


def cells(size: Size, strides: Sequence[int]) -> int:
    """Return the cells of all grids."""
    return sum((size.height // s) * (size.width // s) for s in strides)


def grids(size: Size, strides: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the place of each cell in its grid [N, 2] (x, y), and its stride [N, 1]."""
    places, steps = [], []
    for stride in strides:
        y, x = np.mgrid[: size.height // stride, : size.width // stride]
        places.append(np.stack([x.ravel(), y.ravel()], axis=1))
        steps.append(np.full((x.size, 1), stride))
    return np.concatenate(places).astype(np.float32), np.concatenate(steps).astype(np.float32)


def _main(outputs: Outputs) -> NDArray[np.generic]:
    """Return the first output; YOLOv5 may have its grids after it."""
    return next(iter(outputs.values()))


def _is_rows(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] == 1 and shape[2] > 5
