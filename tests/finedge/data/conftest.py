"""Folders of small pictures that differ in content, the same in every process."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

Draw = Callable[..., Path]


def draw(path: Path, *, seed: str = "") -> Path:
    """Write a picture that goes by its path, or by `seed`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(zlib.crc32((seed or path.as_posix()).encode())).integers(
        0, 255, (6, 6, 3), np.uint8
    )
    done, data = cv2.imencode(
        path.suffix if path.suffix.isascii() else ".png", cv2.resize(small, (24, 20))
    )
    assert done
    path.write_bytes(data.tobytes())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Make pictures below a new folder.

    `folder({"crow": 3}, "train", "test")` writes train/crow/0.png and so on.
    """

    def make(counts: dict[str, int], *splits: str, start: int = 0) -> Path:
        root = tmp_path / "d"
        for split in splits or (".",):
            for label, count in counts.items():
                (root / split / label).mkdir(parents=True, exist_ok=True)
                for i in range(start, start + count):
                    draw(root / split / label / f"{i}.png", seed=f"{split}/{label}/{i}")
        return root

    return make
