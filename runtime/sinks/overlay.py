"""A frame with its answer drawn on it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_LABELS = 3
COLOURS = {
    "ok": (90, 220, 90),
    "unknown": (60, 200, 250),
    "stale": (60, 60, 240),
    "no_signal": (60, 60, 240),
    "idle": (200, 200, 200),
}  # BGR
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(
    image: NDArray[np.uint8],
    record: dict[str, Any],
    *,
    things: Sequence[dict[str, Any]] = (),
) -> NDArray[np.uint8]:
    """Return a copy of uint8 [H, W, 3] RGB as BGR, with the answer drawn on it.

    Status, labels and age are in its upper left. A rectangle shows the region of interest. Instead,
    each of `things`, the lines of a frame with a finder, has its own rectangle with its label.
    """
    picture = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)
    colour = COLOURS[record["status"]]
    if "roi" in record:
        x, y, w, h = record["roi"]
        cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), colour, 2)
    for thing in things:
        _draw_box(picture, thing)
    if not things:  # each thing has its label at its box
        _write(picture, lines(record), colour=colour)
    return picture


def _draw_box(picture: NDArray[np.uint8], thing: dict[str, Any]) -> None:
    x, y, w, h = thing["box"]
    colour, scale = COLOURS[thing["status"]], max(0.35, picture.shape[0] / 1080)
    cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), colour, 2)
    track = "" if thing["track"] is None else f"#{thing['track']} "
    best = thing["top"][0]
    text = f"{track}{_ascii(best['label'])} {100 * best['p']:.0f} %"
    at = (x, max(y - 6, round(24 * scale)))
    cv2.putText(picture, text, at, FONT, scale, colour, 1, cv2.LINE_AA)


def lines(record: dict[str, Any]) -> list[str]:
    """Return what is written on a frame.

    OpenCV's fonts are ASCII: accents are dropped, other letters become question marks.
    """
    status = record["status"]
    head = [] if status == "ok" else [status.replace("_", " ")]
    labels = [f"{_ascii(t['label'])} {100 * t['p']:.0f} %" for t in record["top"][:MAX_LABELS]]
    return head + labels + ([] if record["age_ms"] is None else [f"{record['age_ms']:.0f} ms"])


def _write(
    picture: NDArray[np.uint8], text: Sequence[str], *, colour: tuple[int, int, int]
) -> None:
    scale = max(0.35, picture.shape[0] / 720)
    step, thick = round(32 * scale), max(1, round(2 * scale))
    width = max(cv2.getTextSize(line, FONT, scale, thick)[0][0] for line in text)
    # A dark plate makes the text readable on any background. A thicker copy under the text would
    # not do: OpenCV 5 draws that wider.
    plate = picture[: len(text) * step + step // 2, : width + step]
    plate //= 3
    for row, line in enumerate(text, 1):
        cv2.putText(
            picture,
            line,
            (step // 2, row * step),
            FONT,
            scale,
            colour if row == 1 else (255, 255, 255),
            thick,
            cv2.LINE_AA,
        )


def _ascii(label: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", label) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()
