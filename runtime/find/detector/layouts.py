"""The known forms of a detector's outputs, told by names, types and shapes.

The rules for the input are those of each family's own inference script.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from finedge.errors import DataError
from finedge.runtime.find.detector import detr, ssd, yolo
from finedge.runtime.find.detector.candidates import Candidates, Outputs, Size
from finedge.runtime.find.detector.network_input import IMAGENET_MEAN, IMAGENET_STD, InputRule


@dataclass(frozen=True)
class Layout:
    """One form of outputs.

    Attributes:
        name: of the family.
        form: its outputs, for people.
        fits: whether outputs for an input of this size have this form.
        decode: outputs to boxes.
        rule: what the family does with a frame.
        overlaps: several boxes may be of one thing, so that non-maximum suppression follows.
    """

    name: str
    form: str
    fits: Callable[[Outputs, Size], bool]
    decode: Callable[[Outputs, Size], Candidates]
    rule: InputRule = field(default_factory=InputRule)
    overlaps: bool = False


LAYOUTS = (
    Layout(
        "YOLOX",
        "[1, N, 5 + classes], N a cell of the grids of 8, 16 and 32 pixels",
        yolo.is_yolox,
        yolo.decode_yolox,
        InputRule("corner", divisor=1, bgr=True),
        overlaps=True,
    ),
    Layout(
        "YOLOv5, MegaDetector",
        "[1, 3N, 5 + classes]",
        yolo.is_yolov5,
        yolo.decode_yolov5,
        InputRule("letterbox"),
        overlaps=True,
    ),
    Layout(
        "YOLOv8 and later",
        "[1, 4 + classes, N]",
        yolo.is_yolov8,
        yolo.decode_yolov8,
        InputRule("letterbox"),
        overlaps=True,
    ),
    Layout(
        "YOLO without NMS",
        "[1, Q, 6]: corners, score, class",
        yolo.is_end_to_end,
        yolo.decode_end_to_end,
        InputRule("letterbox"),
    ),
    Layout(
        "RT-DETR, D-FINE",
        "labels [1, Q], boxes [1, Q, 4], scores [1, Q]",
        detr.is_rtdetr,
        detr.decode_rtdetr,
    ),
    Layout(
        "RT-DETR, D-FINE of transformers",
        "logits [1, Q, classes], pred_boxes [1, Q, 4]",
        detr.is_logits,
        detr.decode_logits,
    ),
    Layout(
        "RF-DETR",
        "dets [1, Q, 4], labels [1, Q, classes]",
        detr.is_rfdetr,
        detr.decode_rfdetr,
        InputRule(mean=IMAGENET_MEAN, std=IMAGENET_STD),
    ),
    Layout(
        "SSD of torchvision",
        "boxes [N, 4], labels [N], scores [N]",
        ssd.is_torchvision,
        ssd.decode_torchvision,
    ),
    Layout(
        "SSD of the ONNX zoo",
        "bboxes [1, N, 4], labels [1, N], scores [1, N]",
        ssd.is_zoo,
        ssd.decode_zoo,
        InputRule(mean=IMAGENET_MEAN, std=IMAGENET_STD),
    ),
    Layout(
        "SSD of TensorFlow",
        "detection_boxes [1, N, 4], detection_classes [1, N], detection_scores [1, N]",
        ssd.is_tensorflow,
        ssd.decode_tensorflow,
        InputRule(divisor=1),
    ),
)


def decoded(layout: Layout, outputs: Outputs, size: Size, *, model: str) -> Candidates:
    """Return the boxes of a model's outputs.

    Raises:
        DataError: the outputs do not fit together.
    """
    try:
        candidates = layout.decode(outputs, size)
    except (IndexError, ValueError) as error:
        raise _misfit(layout, outputs, model) from error
    if not candidates.fit_together:
        raise _misfit(layout, outputs, model)
    return candidates


def choose_layout(outputs: Outputs, size: Size, *, model: str) -> Layout:
    """Return the form of a model's outputs.

    Raises:
        DataError: it has none of the known forms.
    """
    for layout in LAYOUTS:
        if layout.fits(outputs, size):
            return layout
    forms = "; ".join(f"{layout.name}: {layout.form}" for layout in LAYOUTS)
    raise DataError(
        f"{model} has unknown outputs for {size.width}x{size.height}: {_shapes(outputs)}",
        expected=f"one of these forms: {forms}",
        fix="export the detector in one of these forms, for one image at a time",
    )


def _misfit(layout: Layout, outputs: Outputs, model: str) -> DataError:
    return DataError(
        f"{model}: the outputs do not fit together: {_shapes(outputs)}",
        expected=f"{layout.form} ({layout.name})",
        fix="export the detector in this form, for one image at a time",
    )


def _shapes(outputs: Outputs) -> str:
    return ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in outputs.items())
