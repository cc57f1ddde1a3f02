"""Two clips of a rendered garden as H.264, encoded once: a minute with birds, and a still one."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from finedge.synthetic.flock import Flock

FPS, WIDTH, HEIGHT = 15, 1280, 720
BIRDS, SEED = 3, 1
KEY_EVERY = 2 * FPS  # a client that joins late waits at most 2 s for a picture


def encode(folder: Path, *, seconds: int) -> tuple[Path, Path]:
    """Write moving.h264 and still.h264 of the same garden, and return their paths.

    They are raw streams with access unit delimiters, so that a server can tell the frames apart.
    Every clip begins with a key frame: one may follow the other.
    """
    return tuple(  # type: ignore[return-value]
        _encoded(folder / f"{name}.h264", Flock(birds, seed=SEED, fps=FPS), frames=seconds * FPS)
        for name, birds in (("moving", BIRDS), ("still", 0))
    )


def _encoded(path: Path, scene: Flock, *, frames: int) -> Path:
    size = f"width={WIDTH} height={HEIGHT} framerate={FPS}/1"
    parts = (
        f"fdsrc blocksize={WIDTH * HEIGHT * 3}",
        f"rawvideoparse format=rgb {size}",
        "videoconvert",
        f"x264enc speed-preset=veryfast pass=qual quantizer=24 bframes=0 aud=true "
        f"key-int-max={KEY_EVERY} option-string=scenecut=0",
        "video/x-h264,stream-format=byte-stream,alignment=au,profile=main",
        f"filesink location={path}",
    )
    words = shlex.split(f"gst-launch-1.0 -q {' ! '.join(parts)}")
    process = subprocess.Popen(words, stdin=subprocess.PIPE)
    assert process.stdin is not None
    for index in range(frames):
        process.stdin.write(scene.frame(index).tobytes())
    process.stdin.close()
    if process.wait():
        raise SystemExit("GStreamer did not encode the clip; see tests/apt.txt")
    return path
