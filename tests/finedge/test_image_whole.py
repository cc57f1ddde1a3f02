"""A picture is whole or refused: every format, cut at many places."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from finedge.errors import DataError
from finedge.image import SUFFIXES, CutShort, Unreadable, decode, read_image
from finedge.image.formats import FORMATS, _is_built

CUTS = 50
RNG = np.random.default_rng(0)
SMOOTH = Image.fromarray(RNG.integers(0, 255, (6, 8, 3), np.uint8)).resize((80, 64))
PICTURE = np.asarray(SMOOTH).copy()
PICTURE[40:, 50:] = RNG.integers(0, 255, (24, 30, 3))  # the last part is no plain area
IMAGE = Image.fromarray(PICTURE)


def saved(kind: str, image: Image.Image = IMAGE, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_opencv(suffix: str, picture: NDArray[Any], *options: int) -> bytes:
    return cv2.imencode(suffix, picture, list(options))[1].tobytes()


KINDS: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: saved("JPEG"),
    "jpeg progressive": lambda: saved("JPEG", progressive=True),
    "jpeg restarts": lambda: saved("JPEG", restart_marker_blocks=3),
    "jpeg grey": lambda: saved("JPEG", IMAGE.convert("L")),
    "jpeg cmyk": lambda: saved("JPEG", IMAGE.convert("CMYK")),
    "png": lambda: saved("PNG"),
    "png palette": lambda: saved("PNG", IMAGE.convert("P")),
    "png 16 bits": lambda: by_opencv(".png", PICTURE.astype(np.uint16) * 257),
    "bmp": lambda: saved("BMP"),
    "webp": lambda: saved("WEBP"),
    "webp lossless": lambda: saved("WEBP", lossless=True),
    "tiff": lambda: saved("TIFF"),
    "tiff lzw": lambda: saved("TIFF", compression="tiff_lzw"),
    "tiff jpeg": lambda: saved("TIFF", compression="jpeg"),
    "tiff strips": lambda: by_opencv(".tif", PICTURE),
    "gif": lambda: saved("GIF"),
    "gif moving": lambda: saved("GIF", save_all=True, append_images=[IMAGE.rotate(90)]),
    "jp2": lambda: saved("JPEG2000"),
    "avif": lambda: saved("AVIF"),
    "ppm": lambda: saved("PPM"),
    "ppm text": lambda: by_opencv(".ppm", PICTURE, cv2.IMWRITE_PXM_BINARY, 0),
    "pbm": lambda: saved("PPM", IMAGE.convert("1")),
}


def whole(kind: str) -> bytes:
    if kind == "avif" and not (features.check("avif") and _is_built("AVIF")):
        pytest.skip("AVIF is missing in this Pillow or OpenCV")
    if kind.startswith("gif") and not _is_built("GIF"):
        pytest.skip("this OpenCV has no GIF")
    return KINDS[kind]()


def cuts(size: int) -> list[int]:
    return sorted({*np.linspace(0, size - 1, CUTS).astype(int).tolist(), *range(size - 8, size)})


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_anywhere_is_refused_or_has_all_its_pixels(kind: str) -> None:
    data = whole(kind)
    pixels = decode(data).image
    refused = 0
    for size in cuts(len(data)):
        try:
            image = decode(data[:size]).image
        except Unreadable:
            refused += 1
            continue
        assert np.array_equal(image, pixels), (
            f"a part of the picture at {size} of {len(data)} bytes"
        )
    assert refused >= CUTS - 1


@pytest.mark.parametrize(
    "kind", ["jpeg", "jpeg progressive", "jpeg restarts", "jpeg cmyk", "jpeg grey"]
)
def test_an_end_mark_behind_half_a_jpeg_makes_it_no_picture(kind: str) -> None:
    data = whole(kind)
    last_block = 300  # bytes: what is lost of the last 16 x 16 pixels is not seen
    for size in range(len(data) // 3, len(data) - last_block, len(data) // 20):
        with pytest.raises(CutShort):
            decode(data[:size] + b"\xff\xd9")


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "jpeg restarts", "jpeg cmyk"])
def test_data_that_is_lost_in_the_middle_of_a_jpeg_is_missed(kind: str) -> None:
    data = whole(kind)
    middle = data.rfind(b"\xff\xda") // 2 + len(data) // 2
    with pytest.raises(Unreadable):
        decode(data[:middle] + data[middle + 200 :])


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "jpeg restarts"])
def test_only_the_end_mark_is_missing(kind: str) -> None:
    data = whole(kind)
    assert data.endswith(b"\xff\xd9")
    for short in (data[:-2], data[:-1]):
        assert np.array_equal(decode(short).image, decode(data).image)


def test_a_png_without_its_end_has_all_its_rows() -> None:
    data = whole("png")
    assert np.array_equal(decode(data[:-12]).image, PICTURE)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_behind_a_picture_does_no_harm(kind: str) -> None:
    if kind in ("jp2", "avif", "ppm text"):
        pytest.skip("their decoders want the end of the file")
    data, junk = whole(kind), np.random.default_rng(1).bytes(20_000)
    film = b"\0\0\0\x18ftypmp42" + junk + b"\xff\xda" + junk
    second = KINDS["jpeg"]()
    for tail in (film, second, b"\0" * 5000, b"\xff"):
        assert np.array_equal(decode(data + tail).image, decode(data).image)


def test_a_thumbnail_is_no_end_of_its_picture() -> None:
    thumbnail = saved("JPEG", IMAGE.resize((16, 12)))
    segment = b"\xff\xe2" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    data = whole("jpeg")
    data = data[:2] + segment + data[2:]
    assert np.array_equal(decode(data).image, decode(whole("jpeg")).image)
    with pytest.raises(CutShort):
        decode(data[: len(data) // 2])


# --- what is refused, and why ---


def png(width: int, height: int, rows: bytes, *, bits: int = 8) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def jpeg_of_twelve_bits() -> bytes:
    data = bytearray(KINDS["jpeg"]())
    data[data.find(b"\xff\xc0") + 4] = 12
    return bytes(data)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
UNSUPPORTED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"milk, eggs and bread", r"is not an image: it begins with the text 'milk"),
    "page": (b"<!DOCTYPE html>\n<html><body>Not found", r"is a web page \(HTML\)"),
    "drawing": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "is a drawing"),
    "pointer": (LFS, "is a Git LFS pointer"),
    "zeros": (bytes(5000), "holds only zeros"),
    "heic": (
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
        "is a HEIC, which OpenCV does not read",
    ),
    "film": (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(64), "is a video"),
    "matroska": (b"\x1aE\xdf\xa3" + bytes(64), "is a video"),
    "document": (b"%PDF-1.7" + bytes(64), "is a PDF document"),
    "rows": (png(80, 64, bytes(241 * 30)), "is cut short: rows of its picture are missing"),
    "large": (png(18_000, 18_000, b""), "is too large: 18000x18000 pixels"),
    "deep and large": (
        png(8_000, 8_000, b"", bits=16),
        "is too large: 8000x8000 pixels of 16 bits",
    ),
    "twelve": (jpeg_of_twelve_bits(), "has the unknown bit depth 12"),
    "float": (
        saved("TIFF", Image.fromarray(np.ones((9, 9), np.float32))),
        "has float samples of 32 bits",
    ),
    "jpeg": (KINDS["jpeg"]()[:900], "is cut short"),
    "big tiff": (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**64 - 1),
        "is cut short: its directory goes past its end",
    ),
    "big tiff values": (
        struct.pack("<2sHHHQQHHQQ", b"II", 43, 8, 0, 16, 1, 256, 16, 2, 2**64 - 1),
        "is cut short: its directory goes past its end",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_refusal_names_its_true_reason(name: str, tmp_path: Path) -> None:
    data, reason = UNSUPPORTED[name]
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.jpg {reason}"):
        read_image(tmp_path / "a.jpg")


def widened(data: bytes, place: bytes, form: str, *values: int, behind: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, data.find(place) + behind, *values)
    return bytes(changed)


SIDE = 16_000
LARGE = {
    "jpeg": lambda: widened(whole("jpeg"), b"\xff\xc0", ">HH", SIDE, SIDE, behind=5),
    "gif": lambda: widened(whole("gif"), b"GIF8", "<HH", SIDE, SIDE, behind=6),
    "webp": lambda: widened(whole("webp"), b"VP8 ", "<HH", 16_000, 16_000, behind=14),
    "webp lossless": lambda: widened(
        whole("webp lossless"), b"VP8L", "<I", 15_999 | 15_999 << 14, behind=9
    ),
    "jp2": lambda: widened(whole("jp2"), b"\xff\x4f\xff\x51", ">II", SIDE, SIDE, behind=8),
    "avif": lambda: widened(whole("avif"), b"ispe", ">II", SIDE, SIDE, behind=8),
    "tiff": lambda: saved("TIFF", Image.new("1", (SIDE, SIDE)), compression="group4"),
}


@pytest.mark.parametrize("kind", LARGE)
def test_the_size_is_known_before_anything_is_decoded(kind: str) -> None:
    with pytest.raises(Unreadable, match=r"is too large: 16\d\d\dx16\d\d\d pixels"):
        decode(LARGE[kind]())


def test_what_is_no_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        for name, said in {
            "pipe": "it is a named pipe",
            "folder": "it is a folder",
            "device": "it is a device",
            "socket": "it is a socket",
            "loop": "symbolic links",
            "gone": "No such file",
            "nul\0": "no file has this name",
        }.items():
            with pytest.raises(DataError, match=said):
                read_image(tmp_path / f"{name}.jpg")


# --- what a viewer shows ---


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF", "JPEG2000"])
def test_what_is_transparent_shows_white(kind: str) -> None:
    if kind == "GIF" and not _is_built("GIF"):
        pytest.skip("this OpenCV has no GIF")
    alpha = RNG.integers(0, 256, PICTURE.shape[:2], np.uint8)
    alpha[:20] = 0  # colours under it are hidden
    picture = Image.fromarray(np.dstack([PICTURE, alpha]))
    data = saved(kind, picture, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    shown = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", shown.size, "white")
    expected = np.asarray(Image.alpha_composite(white, shown).convert("RGB")).astype(int)
    assert np.abs(decode(data).image - expected).max() <= 1  # each rounds once
    assert (decode(data).image[:20] == 255).all()


def test_a_palette_with_transparent_colours_shows_white() -> None:
    palette = IMAGE.convert("P")
    data = saved("PNG", palette, transparency=bytes(256))
    assert (decode(data).image == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2", ".pgm"])
def test_sixteen_bits_are_shortened(suffix: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    assert np.array_equal(decode(by_opencv(suffix, values)).image[..., 0], values >> 8)


def test_twelve_bits_in_sixteen_are_said_once_a_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = (np.arange(64 * 64, dtype=np.uint16)).reshape(64, 64)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(by_opencv(".png", values))
        assert read_image(tmp_path / name).max() == 15
    assert [r.message for r in caplog.records if "4095 of 65535" in r.message][1:] == []
    assert "a.png" in caplog.text


@pytest.mark.parametrize("peak", [1, 15, 1023, 4095])
def test_the_white_of_a_pnm_is_what_it_says(peak: int) -> None:
    values = (
        np.linspace(0, peak, 64 * 64).round().astype(">u2" if peak > 255 else "u1").reshape(64, 64)
    )
    image = decode(b"P5\n# a comment\n64 64\n%d\n" % peak + values.tobytes()).image
    assert (image.min(), image.max()) == (0, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_applied(kind: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = saved(kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    plain = saved(kind, **({"lossless": True} if kind == "WEBP" else {}))
    moves = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's numbers as Pillow's transpositions
    upright = Image.fromarray(decode(plain).image)
    if turn in moves:
        upright = upright.transpose(Image.Transpose(moves[turn]))
    assert np.array_equal(decode(data).image, np.asarray(upright))


def test_usual_pictures_have_the_pixels_of_opencv() -> None:
    for kind in (
        "jpeg",
        "jpeg progressive",
        "jpeg restarts",
        "jpeg grey",
        "jpeg cmyk",
        "png",
        "png palette",
        "webp",
        "tiff",
        "bmp",
    ):
        data = np.frombuffer(KINDS[kind](), np.uint8)
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert bgr is not None
        assert np.array_equal(decode(data.tobytes()).image, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), (
            kind
        )


def test_every_suffix_belongs_to_one_format() -> None:
    assert sum(len(format.suffixes) for format in FORMATS.values()) == len(SUFFIXES)
    assert {".jfif", ".jpe", ".dib", ".gif", ".ppm", ".jp2"} < SUFFIXES


def test_a_jpeg_of_no_width_is_refused_by_its_size() -> None:
    saved = io.BytesIO()
    Image.new("RGB", (32, 24)).save(saved, "JPEG")
    raw = bytearray(saved.getvalue())
    frame = raw.index(b"\xff\xc0")
    raw[frame + 7 : frame + 9] = b"\0\0"
    with pytest.raises(Unreadable, match="has 0x24 pixels"):
        decode(bytes(raw))
