"""Short clips by PyAV: chosen time stamps, codecs, containers, rotations."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

UNIT = Fraction(1, 90_000)
CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))  # row by row


def quadrants(width: int = 96, height: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture that shows how it was turned: red, green / blue, white."""
    image = np.zeros((height, width, 3), np.uint8)
    for place, colour in enumerate(CORNERS):
        y, x = place // 2 * height // 2, place % 2 * width // 2
        image[y : y + height // 2, x : x + width // 2] = colour
    return image


def grey(count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Plain pictures; each is brighter than the one before."""
    return [np.full((64, 96, 3), 40 + 160 * i // count, np.uint8) for i in range(count)]


def write_clip(
    path: Path,
    pictures: Sequence[np.ndarray[Any, np.dtype[np.uint8]]],
    *,
    seconds: Sequence[float] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    display: tuple[float, bool] | None = None,
) -> Path:
    """Write a clip.

    Args:
        path: its suffix chooses the container.
        pictures: uint8 [H, W, 3] RGB.
        seconds: the presentation time of each; else 25 a second.
        codec: as FFmpeg names its encoder.
        pixels: the pixel format.
        options: of the encoder.
        display: degrees and left-right mirror of the display matrix.
    """
    times = seconds if seconds is not None else [i / 25 for i in range(len(pictures))]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *pictures[0].shape[1::-1], pixels
        if seconds is not None:
            stream.codec_context.time_base = UNIT
        if display is not None:
            stream.set_display_rotation(display[0], hflip=display[1])
        unit = stream.codec_context.time_base or Fraction(1, 25)
        for image, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time / unit), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shift_start(path: Path, target: Path, *, frames: int) -> Path:
    """Copy a clip without the first frames, hidden by an edit list as a trimmed clip has it."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        shift = round(frames / 25 / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is not None and packet.pts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                container.mux(packet)
    return target
