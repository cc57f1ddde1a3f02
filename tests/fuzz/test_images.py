"""Bytes of images that were changed at random: a picture, or a refusal, in bounded memory."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from finedge.errors import DataError
from finedge.image import Unreadable, decode, read_image
from finedge.runtime.sources.multipart import MultipartParser

MAX_MIB = 3000  # at the limit of pixels OpenCV holds the samples, RGB and a copy of the file
MANY = 4_000
COUNTS = [200, pytest.param(MANY, marks=pytest.mark.slow)]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))


def saved(kind: str, image: Image.Image = PICTURE, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


SEEDS = [
    saved("JPEG"),
    saved("JPEG", progressive=True),
    saved("JPEG", restart_marker_blocks=2),
    saved("PNG"),
    saved("PNG", PICTURE.convert("RGBA")),
    saved("PNG", PICTURE.convert("P"), transparency=0),
    saved("WEBP"),
    saved("WEBP", lossless=True),
    saved("BMP"),
    saved("TIFF"),
    saved("TIFF", compression="tiff_lzw"),
    saved("GIF"),
    saved("JPEG2000"),
    saved("PPM"),
    *([saved("AVIF")] if features.check("avif") else []),
]


@st.composite
def images(draw: st.DrawFn) -> bytes:
    """A valid file with some bytes changed, cut, or with a piece twice; or noise."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 8))):
        span = draw(st.sampled_from([40, 200, len(data)]))
        at = draw(st.integers(0, min(span, len(data)) - 1))
        value = draw(
            st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80"]) | st.binary(min_size=1, max_size=4)
        )
        data[at : at + len(value)] = value
    if draw(st.booleans()):
        start, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
        data[start:end] = draw(st.sampled_from([b"", bytes(data[start:end]) * 2]))
    return bytes(data) if draw(st.integers(0, 15)) else draw(st.binary(max_size=64))


@pytest.mark.parametrize("examples", COUNTS)
def test_bytes_are_a_picture_or_a_refusal(examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(images())
    def check(data: bytes) -> None:
        try:
            image = decode(data).image
        except Unreadable:
            return
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3

    check()


@pytest.mark.parametrize("examples", COUNTS)
def test_a_file_is_a_picture_or_a_data_error(examples: int, tmp_path: Path) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(images(), st.sampled_from([".jpg", ".png", ".tif"]))
    def check(data: bytes, suffix: str) -> None:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(data)
        try:
            read_image(path)
        except DataError:
            return

    check()


@pytest.mark.parametrize("examples", COUNTS)
def test_a_multipart_answer_never_breaks_its_reader(examples: int) -> None:
    head = st.sampled_from(
        [
            b"--cut",
            b"--cut--",
            b"\r\n",
            b"\n",
            b"Content-Length: 4",
            b"Content-Length: -1",
            b"\xff\xd9",
            SEEDS[0],
        ]
    )
    pieces = st.lists(head | st.binary(max_size=40), max_size=30)

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(pieces, st.sampled_from(["cut", "", "\u20ac"]))
    def check(sent: list[bytes], boundary: str) -> None:
        parts, total = MultipartParser(boundary), 0
        try:
            for piece in sent:
                total += sum(map(len, parts.feed(piece)))
        except ValueError:
            return
        assert total <= sum(map(len, sent))

    check()


@pytest.mark.slow
def test_changed_images_take_bounded_memory() -> None:
    """The same inputs in a process of their own, whose peak is read at its end."""
    arguments = ["-q", "-p", "no:cacheprovider", "-m", "slow or not slow", str(Path(__file__))]
    chosen = [*arguments, "-k", f"picture_or_a_refusal and {MANY}"]
    # Not ru_maxrss: that also counts the process which started this one.
    peak = "int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) >> 10"
    code = "; ".join(
        (
            "import re, sys, pytest",
            f"rc = pytest.main({chosen!r})",
            f"print('peak', {peak})",
            "sys.exit(rc)",
        )
    )
    with tempfile.TemporaryFile("w+") as output:
        run = [sys.executable, "-c", code]
        done = subprocess.run(run, stdout=output, stderr=subprocess.DEVNULL, check=False)
        output.seek(0)
        text = output.read()
    assert done.returncode == 0, text[-3000:]
    assert int(text.split()[-1]) < MAX_MIB
