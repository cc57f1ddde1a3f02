"""The pictures of one video stream that FFmpeg reads: RGB, upright, each with its time.

Everything that is known of a container comes from here: time stamps, rotation, frame count,
duration. A picture that is not whole is an error, as it is for photos.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finedge.image import Unreadable, decode
from finedge.image.moves import Moves, moved
from finedge.runtime.machine.packages import load_package
from finedge.runtime.sources.base import SourceInfo
from finedge.runtime.sources.guard import Guard

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

MOTION_JPEG = "mjpeg"  # the codec, as FFmpeg names it
FPS = 25.0  # of a stream that does not say its rate
UPRIGHT: Moves = (0, 0, 0)


class Damaged(Exception):
    """A picture is not whole. The decoder can go on: it waits for the next key frame."""


@dataclass(frozen=True)
class Picture:
    """One decoded picture.

    Attributes:
        image: uint8 [H, W, 3] RGB, turned by the rotation in the container.
        seconds: its presentation time after the start of the stream, in s; never falling.
        arrival_ns: when its last packet was read, on the monotonic clock.
        decode_ms: the time of its decoding and of its conversion to RGB.
    """

    image: NDArray[np.uint8]
    seconds: float
    arrival_ns: int
    decode_ms: float


class PresentationClock:
    """The time of each picture in s after the start of the stream, from its time stamp.

    Args:
        stream: of the pictures.
        period_s: between two pictures, where the container does not say.
    """

    def __init__(self, stream: VideoStream, *, period_s: float) -> None:
        self._unit, self._start = stream.time_base, stream.start_time
        self._period_s, self._shift_s = period_s, 0.0
        self._last_s: float | None = None

    def __call__(self, stamp: int | None) -> float:
        """Return the time of the next picture, in order of presentation.

        A stamp before the last one begins a second recording in the same file: its time goes on
        from there.
        """
        next_s = 0.0 if self._last_s is None else self._last_s + self._period_s
        if stamp is None or self._unit is None:
            self._last_s = next_s
            return next_s
        if self._start is None:
            self._start = stamp
        seconds = float((stamp - self._start) * self._unit) + self._shift_s
        if self._last_s is not None and seconds < self._last_s:
            self._shift_s += next_s - seconds
            seconds = next_s
        self._last_s = seconds
        return seconds


class Decoder:
    """The pictures of the video stream of an open container.

    Motion JPEG is decoded as photos are, because FFmpeg completes half a JPEG without an error. All
    other pictures have the size of the first.

    Args:
        container: opened; this class closes it.
        stream: a video stream of it, with a decoder.

    Attributes:
        packets: how many were read, including those of pictures that an edit list hides.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container, self._stream = container, stream
        self._guard = Guard(container.close)
        rate = stream.guessed_rate or stream.average_rate
        self.fps = float(rate) if rate else None
        self._clock = PresentationClock(stream, period_s=1 / (self.fps or FPS))
        self._reformatter: Any = load_package("av.video.reformatter")
        self._to_rgb = self._reformatter.VideoReformatter()
        self._demuxed = container.demux(stream)
        self._ready = deque[Picture]()
        self._size: tuple[int, int] | None = None
        self._turn: Moves | None = None
        self._saw_key, self._wait_for_key = False, False
        self.packets = 0

    def read(self) -> Picture | None:
        """Return the next picture; None at the end, or once closed.

        Pictures before the first key frame are left out: they refer to what is not there.

        Raises:
            Damaged: the next picture is not whole.
            av.FFmpegError: reading failed.
        """
        with self._guard.reading() as is_open:
            while is_open and not self._ready:
                packet = next(self._demuxed, None)
                if packet is None:
                    return None
                self._decode(packet, arrival_ns=time.monotonic_ns())
            return self._ready.popleft() if is_open else None

    def info(self, first: Picture | None, *, kind: str, uri: str) -> SourceInfo:
        """Return the properties of the stream; its size is that of the first picture."""
        height, width = first.image.shape[:2] if first is not None else (None, None)
        frames = self._stream.frames or round((self.duration_s or 0.0) * (self.fps or 0.0))
        return SourceInfo(kind, uri, frames or None, width, height, self.fps)

    @property
    def duration_s(self) -> float | None:
        """The duration in the container, in s; None where it says none."""
        stream, container = self._stream, self._container
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return container.duration / 1e6 if container.duration else None

    @property
    def announced(self) -> int | None:
        """The count of frames that the container stores: AVI, and MP4 without fragments."""
        return self._stream.frames or None

    @property
    def codec(self) -> str:
        """The four letters of the codec; where the container has none, the decoder's name."""
        code = str(self._stream.codec_tag or "").strip("\0 ")
        named = bool(code) and code.isascii() and code.isprintable() and "\\" not in code
        return code if named else self._stream.codec_context.name

    @property
    def is_motion_jpeg(self) -> bool:
        """Whether each picture is a JPEG."""
        return self._stream.codec_context.name == MOTION_JPEG

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._guard.closed

    def close(self) -> None:
        """Close the container, from any thread; a read that waits closes it at its end."""
        self._guard.close()

    def _decode(self, packet: Packet[VideoStream], *, arrival_ns: int) -> None:
        start = time.monotonic_ns()
        self._packets_read(packet)
        try:
            pictures = self._pictures(packet)
        except Damaged:
            if not self._saw_key:
                return  # the recording begins between two key frames
            self._wait_for_key = True
            raise
        decode_ms = (time.monotonic_ns() - start) / 1e6 / max(1, len(pictures))
        self._ready += [
            Picture(image, seconds, arrival_ns, decode_ms) for image, seconds in pictures
        ]

    def _packets_read(self, packet: Packet[VideoStream]) -> None:
        self.packets += packet.size > 0
        self._saw_key = self._saw_key or packet.is_keyframe

    def _pictures(self, packet: Packet[VideoStream]) -> list[tuple[NDArray[np.uint8], float]]:
        if self.is_motion_jpeg:
            return self._photo(packet) if packet.size else []
        av = load_package("av")
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            raise Damaged("cannot be decoded") from error
        return [(self._upright(frame), self._clock(frame.pts)) for frame in self._whole(frames)]

    def _photo(self, packet: Packet[VideoStream]) -> list[tuple[NDArray[np.uint8], float]]:
        try:
            image = decode(bytes(packet)).image
        except Unreadable as error:
            raise Damaged(str(error)) from error
        if self._turn is None:
            self._turn = self._turn_of_photos(packet)
        stamp = packet.dts if packet.pts is None else packet.pts
        return [(moved(image, self._turn), self._clock(stamp))]

    def _turn_of_photos(self, packet: Packet[VideoStream]) -> Moves:
        """Return the rotation in the container: FFmpeg says it with a decoded picture only."""
        av = load_package("av")
        try:
            frames = packet.decode()
        except av.FFmpegError:
            return UPRIGHT
        return turn_of(frames[0]) if frames else UPRIGHT

    def _whole(self, frames: list[VideoFrame]) -> list[VideoFrame]:
        """Return the pictures; none of those that come after damage and before a key frame.

        Raises:
            Damaged: one of them lost a part on its way.
        """
        if self._wait_for_key and any(frame.key_frame for frame in frames):
            self._wait_for_key = False
        if self._wait_for_key:
            return []
        if any(frame.is_corrupt for frame in frames):
            raise Damaged("is cut short")
        return frames

    def _upright(self, frame: VideoFrame) -> NDArray[np.uint8]:
        self._size = self._size or (frame.width, frame.height)
        width, height = self._size
        # Bicubic, as OpenCV: it is for the colours of 10 bits; those of 8 bits are the same anyway.
        rgb = self._to_rgb.reformat(
            frame,
            width,
            height,
            "rgb24",
            interpolation=self._reformatter.Interpolation.BICUBIC,
        )
        # Of the first only: reading side data makes a cycle of references that keeps the frame.
        self._turn = turn_of(frame) if self._turn is None else self._turn
        return moved(rgb.to_ndarray(), self._turn)


def turn_of(frame: VideoFrame) -> Moves:
    """Return the moves that make a picture upright, from the display matrix of its container.

    The matrix maps (x, y) to (a x + c y, b x + d y). Phones store turns by right angles, and mirror
    images of front cameras. Any other turn counts as the nearest of these.
    """
    entries: Any = frame.side_data  # it iterates over its values, not as its type says
    for entry in entries:
        if entry.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(entry, np.int32)[:5].tolist()
            if abs(b) + abs(c) > abs(a) + abs(d):
                return 1, int(b < 0), int(c < 0)
            return 0, int(d < 0), int(a < 0)
    return UPRIGHT
