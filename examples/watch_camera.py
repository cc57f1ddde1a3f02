"""Watch a camera, a video or the rendered scene, and print a line when the answer changes.

python examples/watch_camera.py examples/birds.finedge /dev/video0

`finedge classify` does more: several cameras, the newest frame first, smoothing, a live page.
"""

import argparse
import itertools
from datetime import datetime
from pathlib import Path

from finedge import Classifier, open_source


def watch(bundle: Path, source: str, *, frames: int | None) -> None:
    """Print time, label, probability and milliseconds of each change of the best label."""
    last = ""
    with Classifier.open(bundle) as classifier, open_source(source) as camera:
        for frame in itertools.islice(camera, frames):
            (prediction,) = classifier([frame.image])
            best = prediction.top[0]
            if best.label != last:
                times = prediction.ms
                ms = times.preprocess + times.infer + times.post
                print(f"{datetime.now():%H:%M:%S}  {best.label:<24} {best.p:6.1%}  {ms:5.1f} ms")
                last = best.label


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Watch a camera with a bundle.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("source", nargs="?", default="test://", help="/dev/video0, rtsp://, a.mp4")
    parser.add_argument("--frames", type=int, help="stop after so many")
    options = parser.parse_args()
    watch(options.bundle, options.source, frames=options.frames)
