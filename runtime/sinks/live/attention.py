"""The crop of a visit with the model's attention drawn over it, made when somebody asks for it.

One thread of low priority draws, one crop after another, on one core. It has a session of its own,
opened at the first request: the stream never waits for a drawing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress

import cv2
import numpy as np
from numpy.typing import NDArray

from finedge.bundle import CPU_FILE, Bundle, View
from finedge.errors import FinedgeError, SystemProblem
from finedge.image.decode import decode
from finedge.preprocess import preprocess_batch
from finedge.runtime.backend import SessionOptions
from finedge.runtime.classifier import Classifier
from finedge.runtime.explain.open import open_views
from finedge.runtime.explain.overlay import DIM, MIN_SIDE, overlay
from finedge.runtime.explain.views import ExplainOptions
from finedge.runtime.look_twice.window import window
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.sinks.jpeg import to_jpeg

log = logging.getLogger(__name__)

KINDS = ("attention", "mask", "cam")  # which view is drawn: the first kind that the bundle has
MAX_WAITING = 8  # crops
MAX_KEPT = 64  # drawings, about 30 kB each
NICE = 5  # a third of the share of a thread of the stream, where all cores are busy
REST = 3.0  # times as long as a drawing took, before the next one: a quarter of a core at most
MAX_REST_S = 2.0
WAIT_S = 20.0  # of a request, for its drawing

Draw = Callable[[bytes], bytes]


class CropAttention:
    """Draws crops in a thread of its own; any thread may ask.

    Args:
        view: the map that is drawn.
        variant: the variant whose map it is, fp32 or int8.
        open_drawing: opens what draws; called once, in that thread.
    """

    def __init__(self, view: View, variant: str, open_drawing: Callable[[], Draw]) -> None:
        self.view, self.variant = view, variant
        self._open = open_drawing
        self._draw: Draw | None = None
        self._rests_until = 0.0
        self._lock = threading.Lock()
        self._drawings: OrderedDict[bytes, Future[bytes]] = OrderedDict()
        self._worker = ThreadPoolExecutor(
            1, thread_name_prefix="finedge-attention", initializer=_lower_priority
        )

    @classmethod
    def of(cls, classifier: Classifier) -> CropAttention | None:
        """Return what draws the map of a classifier's bundle, or None where it has none.

        The map is that of the variant that runs, where ONNX Runtime runs it, else that of fp32.
        """
        bundle, backend = classifier.bundle, OnnxRuntimeBackend(SessionOptions(threads=1))
        view = _view(bundle)
        if view is None or backend.why_not() is not None:
            return None
        is_int8 = classifier.variant == "int8" and CPU_FILE in bundle.files
        variant = "int8" if is_int8 else "fp32"
        return cls(
            view, variant, lambda: open_drawing(bundle, view, variant=variant, backend=backend)
        )

    def __call__(self, crop: bytes) -> bytes:
        """Return a JPEG of the crop with the map over it, in at most `WAIT_S`.

        Args:
            crop: a JPEG.

        Raises:
            FinedgeError: it cannot be drawn.
            SystemProblem: `MAX_WAITING` crops wait already, or it took too long.
        """
        try:
            return self._drawing(crop).result(WAIT_S)
        except (TooLate, CancelledError) as error:
            raise _busy() from error

    def close(self) -> None:
        """Draw no more; what waits is given up."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _drawing(self, crop: bytes) -> Future[bytes]:
        key = hashlib.sha256(crop).digest()
        with self._lock:
            drawing = self._drawings.pop(key, None)
            if drawing is not None and not _has_failed(drawing):
                self._drawings[key] = drawing  # the newest now
                return drawing
            if sum(not drawing.done() for drawing in self._drawings.values()) >= MAX_WAITING:
                raise _busy()
            while len(self._drawings) >= MAX_KEPT:
                self._drawings.popitem(last=False)
            drawing = self._worker.submit(self._drawn, crop)
            self._drawings[key] = drawing
        return drawing

    def _drawn(self, crop: bytes) -> bytes:
        try:
            draw = self._draw = self._draw or self._open()
            time.sleep(max(0.0, self._rests_until - time.monotonic()))
            began = time.monotonic()
            jpeg = draw(crop)
            now = time.monotonic()
            self._rests_until = now + min(REST * (now - began), MAX_REST_S)
            return jpeg
        except FinedgeError:
            raise
        except Exception as error:  # a drawing must not end the page
            log.warning("live page: no attention: %r", error, exc_info=error)
            raise FinedgeError("the attention of this crop cannot be drawn") from error


def open_drawing(bundle: Bundle, view: View, *, variant: str, backend: OnnxRuntimeBackend) -> Draw:
    """Open a variant of a bundle; return what draws a view over the JPEG of a crop.

    Raises:
        FinedgeError: the bundle's file or its view cannot be opened.
    """
    views = open_views(bundle, variant=variant, views=(view,))
    session, (opened,) = views.session(backend), views.views
    config = bundle.spec.preprocess

    def draw(crop: bytes) -> bytes:
        image = decode(crop).image
        outputs = session(preprocess_batch([image], config, count=1))
        (panel, *_) = opened.panels(views.inside(outputs, options=ExplainOptions()))
        picture = _enlarged(image)
        middle = (config.crop / 2, config.crop / 2)
        seen = window(picture.shape[:2], config, peak=middle, share=1.0)
        part = picture[seen]
        side = max(part.shape[:2])
        drawn = overlay(
            _resized(part, side, side), panel.maps[0], full=panel.full, size=config.crop
        )
        # What the network did not see is grey.
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] * DIM
        picture = np.repeat(np.round(grey).astype(np.uint8), 3, axis=2)
        picture[seen] = _resized(drawn, part.shape[1], part.shape[0])
        return to_jpeg(picture)

    return draw


def _view(bundle: Bundle) -> View | None:
    """Return the view of the best kind, the deepest one; None for a bundle that takes frames."""
    if bundle.spec.preprocess.frame is not None:
        return None
    deepest = [view for kind in KINDS for view in reversed(bundle.views) if view.kind == kind]
    return deepest[0] if deepest else None


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = max(1.0, MIN_SIDE / min(height, width))
    return _resized(image, round(width * scale), round(height * scale))


def _resized(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _has_failed(drawing: Future[bytes]) -> bool:
    """Tell whether a drawing ended without a picture: it is tried again, as memory may be free."""
    return drawing.cancelled() or (drawing.done() and drawing.exception() is not None)


def _lower_priority() -> None:
    with suppress(AttributeError, OSError):  # Linux gives each thread a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def _busy() -> SystemProblem:
    return SystemProblem("other crops are being drawn", fix="ask again in a moment")
