from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from finedge.bundle import Bundle
from finedge.spec import Input, Preprocess, Spec


@pytest.fixture
def spec() -> Spec:
    return Spec(
        "plain", "resnet18", ("crow", "finch"), Preprocess(resize=36, crop=32), Input(32, 32)
    )


@pytest.fixture
def bundle(tmp_path: Path, spec: Spec) -> Bundle:
    return Bundle.create(
        tmp_path / "birds.finedge",
        spec,
        files={"model.fp32.onnx": b"a model", "golden.npz": b"golden"},
        provenance={"train": {"run": "r"}},
    )


@pytest.fixture
def make_image():
    """Write a JPEG whose pixels depend on `seed`."""

    def make(path: Path, seed: int = 0, size: tuple[int, int] = (40, 48)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC))
        return path

    return make
