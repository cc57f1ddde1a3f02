from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from finedge.errors import DataError
from finedge.image import is_image, read_image


@pytest.fixture
def picture():
    return np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)).resize(
            (80, 60)
        )
    )


def test_rgb_order(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), picture)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_modes_become_three_channels(tmp_path, picture, mode):
    Image.fromarray(picture).convert(mode).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (60, 80, 3)


def test_exif_orientation_is_applied(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (80, 60, 3)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_truncated_jpeg_is_an_error(tmp_path, picture, share):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture).save(path, quality=95)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"a\.jpg"):
        read_image(path)


def test_bytes_after_a_jpeg_do_no_harm(tmp_path, picture):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture).save(path)
    path.write_bytes(path.read_bytes() + b"\0" * 5000)
    assert read_image(path).shape == (60, 80, 3)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\xff\xd8\xff"])
def test_what_is_no_image_is_an_error(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError):
        read_image(tmp_path / "a.jpg")


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "none.jpg")


def test_decoding_equals_pillow(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "a.jpg"), picture)
    assert np.array_equal(
        read_image(tmp_path / "a.jpg"), np.asarray(Image.open(tmp_path / "a.jpg"))
    )


def test_suffixes(tmp_path):
    assert is_image(tmp_path / "A.JPG")
    assert not is_image(tmp_path / "a.txt")
