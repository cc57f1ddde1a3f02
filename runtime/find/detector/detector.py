"""Finds things with a user's ONNX detector."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.errors import BackendMissing, DataError, FinedgeError
from finedge.runtime.backend import SessionOptions
from finedge.runtime.find.box import Box
from finedge.runtime.find.detector.candidates import Candidates, Size
from finedge.runtime.find.detector.class_names import Classes
from finedge.runtime.find.detector.detr import SIZES
from finedge.runtime.find.detector.layouts import Layout, choose_layout, decoded
from finedge.runtime.find.detector.network_input import InputRule, Placement, fit_frame, scaled
from finedge.runtime.ort.session import open_model, session_settings

if TYPE_CHECKING:
    import onnxruntime

log = logging.getLogger(__name__)

SIDE = 640  # pixels, where the model takes any size
MAX_SIDE = 8192
SUPPRESS = 0.5  # intersection over union with a surer box
MOST = 1000  # boxes, the surest: suppression compares each with each
FAR = 1e6  # pixels; no frame reaches so far
TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


@dataclass(frozen=True)
class Network:
    """A detector's session, and what its input is like."""

    session: onnxruntime.InferenceSession
    name: str
    size: Size
    dtype: type[np.generic]
    rank: int
    rows_first: bool

    def run(self, pixels: NDArray[np.uint8], rule: InputRule) -> dict[str, NDArray[np.generic]]:
        """Return the outputs for a picture of the network's size, uint8 [H, W, 3] RGB.

        Raises:
            FinedgeError: ONNX Runtime cannot run the model.
        """
        values = np.ascontiguousarray(scaled(pixels, rule, dtype=self.dtype))
        if not self.rows_first:
            values = np.ascontiguousarray(values.transpose(2, 0, 1))
        feeds: dict[str, NDArray[np.generic]] = {}
        for tensor in self.session.get_inputs():
            if tensor.name == SIZES:
                # Boxes in pixels of the input: they are then the same for any form of frame.
                feeds[tensor.name] = np.array([[self.size.width, self.size.height]], np.int64)
            else:
                feeds[tensor.name] = values[None] if self.rank == 4 else values
        try:
            arrays = self.session.run(None, feeds)
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise FinedgeError(f"{self.name} does not run: {error}") from error
        names = [output.name for output in self.session.get_outputs()]
        return {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}


@dataclass(frozen=True)
class Detector:
    """Boxes of a detector, in the frame's pixels. Several sources may share it.

    Attributes:
        network: the open model.
        layout: the form of its outputs.
        classes: their names, and those that count.
        threshold: boxes that are less sure are dropped.
    """

    network: Network
    layout: Layout
    classes: Classes
    threshold: float

    def __call__(self, image: NDArray[np.uint8], *, seconds: float) -> tuple[Box, ...]:
        """Return the boxes in a frame, uint8 [H, W, 3] RGB.

        Raises:
            FinedgeError: the model does not run, or its outputs do not fit together.
        """
        size = self.network.size
        pixels, placement = fit_frame(
            image, height=size.height, width=size.width, fit=self.layout.rule.fit
        )
        outputs = self.network.run(pixels, self.layout.rule)
        candidates = decoded(self.layout, outputs, size, model=self.network.name)
        return self._boxes(candidates, placement)

    def _boxes(self, candidates: Candidates, placement: Placement) -> tuple[Box, ...]:
        scores, classes = self._best(candidates)
        is_box = (scores >= self.threshold) & np.isfinite(scores) & (classes >= 0)
        sure = np.flatnonzero(is_box & np.isfinite(candidates.corners).all(axis=1))
        if len(sure) > MOST:
            sure = np.sort(sure[np.argpartition(-scores[sure], MOST)[:MOST]])
        corners = np.clip(placement.to_frame(candidates.corners[sure]), -FAR, FAR)
        scores, classes = scores[sure], classes[sure]
        kept = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        if self.layout.overlaps:
            kept &= _unsuppressed(corners, scores, self.threshold)
        return tuple(
            self._box(corners[i], float(scores[i]), int(classes[i])) for i in np.flatnonzero(kept)
        )

    def _best(self, candidates: Candidates) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
        """Return the score and the class of each box, [N]; classes that do not count score 0."""
        kept = self.classes.kept
        if candidates.classes is not None:
            scores, classes = candidates.scores, candidates.classes
            if kept is not None:
                scores = np.where(np.isin(classes, list(kept)), scores, 0)
            return scores, classes
        scores = candidates.scores
        if kept is not None:
            scores = np.where(np.isin(np.arange(scores.shape[1]), list(kept)), scores, 0)
        return scores.max(axis=1), scores.argmax(axis=1)

    def _box(self, corners: NDArray[np.float64], score: float, number: int) -> Box:
        left, top = np.floor(corners[:2]).astype(int).tolist()
        right, bottom = np.ceil(corners[2:]).astype(int).tolist()
        name = self.classes.name(number)
        return Box(left, top, right - left, bottom - top, min(score, 1.0), name)


def open_network(path: Path, *, threads: int | None = None) -> tuple[Network, dict[str, str]]:
    """Open a detector; return it with the metadata of its file.

    Raises:
        BackendMissing: ONNX Runtime is not installed.
        DataError: the file is not there, is not a model, or takes no picture.
    """
    try:
        model = path.read_bytes()
    except OSError as error:
        raise DataError(f"--find {path}: {error.strerror}", expected="an ONNX file") from error
    try:
        settings = session_settings(SessionOptions(threads))
        # PyTorch writes large weights to a file beside the model.
        settings.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.absolute().parent)
        )
    except ImportError as error:
        raise BackendMissing(
            f"--find {path} needs onnxruntime", fix="pip install finedge"
        ) from error
    session = open_model(
        model,
        settings,
        providers=["CPUExecutionProvider"],
        name=str(path),
        error=DataError,
        fix="export the detector again",
    )
    network = _network(session, path)
    return network, dict(session.get_modelmeta().custom_metadata_map)


def open_detector(network: Network, classes: Classes, *, threshold: float) -> Detector:
    """Return a detector, after a run on an empty picture that tells the form of its outputs.

    Raises:
        DataError: its outputs have none of the known forms, or do not fit the class names.
        UsageError: a class to keep that the model does not have.
    """
    size = network.size
    empty = np.full((size.height, size.width, 3), 114, np.uint8)
    outputs = network.run(empty, InputRule())
    layout = choose_layout(outputs, size, model=network.name)
    found = decoded(layout, outputs, size, model=network.name)
    if found.classes is None:
        classes.check(found.scores.shape[1], model=network.name)
    log.info(
        "%s: a detector of the form %s, %dx%d", network.name, layout.name, *vars(size).values()
    )
    return Detector(network, layout, classes, threshold)


def _network(session: onnxruntime.InferenceSession, path: Path) -> Network:
    inputs = [i for i in session.get_inputs() if i.name != SIZES]
    shape = inputs[0].shape if len(inputs) == 1 else []
    dtype = TYPES.get(inputs[0].type) if len(inputs) == 1 else None
    rows_first = bool(shape) and shape[-1] == 3 and shape[-3] != 3
    is_batch = len(shape) == 4 and isinstance(shape[0], int) and shape[0] > 1
    if dtype is None or len(shape) not in (3, 4) or is_batch or not (rows_first or shape[-3] == 3):
        named = ", ".join(f"{i.name} {i.type} {i.shape}" for i in session.get_inputs())
        raise DataError(
            f"{path} takes {named}",
            expected="one picture of float or uint8, [1, 3, H, W], [1, H, W, 3] or [3, H, W]",
        )
    sides = shape[-3:-1] if rows_first else shape[-2:]
    height, width = (side if isinstance(side, int) and side > 0 else SIDE for side in sides)
    if max(height, width) > MAX_SIDE:
        raise DataError(
            f"{path} takes pictures of {width}x{height}", expected=f"at most {MAX_SIDE} a side"
        )
    return Network(session, str(path), Size(height, width), dtype, len(shape), rows_first)


def _unsuppressed(
    corners: NDArray[np.float64], scores: NDArray[np.floating], threshold: float
) -> NDArray[np.bool_]:
    """Return which boxes no surer one overlaps; of any class, as one thing has one crop."""
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    kept = np.zeros(len(corners), bool)
    if len(corners):
        best = cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), threshold, SUPPRESS)
        kept[np.asarray(best, np.intp).reshape(-1)] = True
    return kept
