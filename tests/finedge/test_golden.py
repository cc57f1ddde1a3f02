from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finedge.bundle import GOLDEN, Bundle
from finedge.errors import BundleError
from finedge.golden import pack, read_golden, synthetic_frame
from finedge.spec import Spec

INPUT = np.zeros((32, 32, 3), np.uint8)
ARRAYS: dict[str, Any] = {
    "frame": synthetic_frame(),
    "input": INPUT,
    "tap/a": np.zeros(7, np.float32),
    "model.fp32.onnx/logits": np.zeros((1, 2), np.float32),
}


def bundle_of(tmp_path: Path, spec: Spec, golden: bytes) -> Bundle:
    return Bundle.create(tmp_path / "b.finedge", spec, files={GOLDEN: golden}, provenance={})


def test_the_arrays_are_read_back(tmp_path: Path, spec: Spec) -> None:
    found = read_golden(bundle_of(tmp_path, spec, pack(ARRAYS)))
    assert set(found) == set(ARRAYS)
    assert all(np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS)


def test_an_array_that_is_needed_and_missing_is_named(tmp_path: Path, spec: Spec) -> None:
    with pytest.raises(BundleError, match="lacks 'frame'"):
        read_golden(bundle_of(tmp_path, spec, pack({"input": INPUT})))["frame"]


WRONG: dict[str, Any] = {
    "an input of another side": {"input": np.zeros((16, 32, 3), np.uint8)},
    "an input of floats": {"input": INPUT.astype(np.float32)},
    "a frame without colours": {"frame": np.zeros((8, 8), np.uint8)},
    "a large frame": {"frame": np.zeros((4096, 1, 3), np.uint8)},
    "a long tap": {"tap/a": np.zeros(5000, np.float32)},
    "another number of classes": {"model.fp32.onnx/logits": np.zeros((1, 3), np.float32)},
    "float64": {"model.fp32.onnx/logits": np.zeros((1, 2))},
    "objects": {"frame": np.array([{"a": 1}], dtype=object)},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_an_array_of_another_kind_is_refused(
    tmp_path: Path, spec: Spec, change: dict[str, Any]
) -> None:
    with pytest.raises(BundleError, match=next(iter(change))):
        read_golden(bundle_of(tmp_path, spec, pack({**ARRAYS, **change})))


def header(shape: str, dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def zipped(member: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("frame.npy", member)
    return buffer.getvalue()


BAD = {
    "no archive": b"PK\x03\x04 no",
    "empty": b"",
    "no array": zipped(b"x"),
    "a huge shape": zipped(header("(1000000000000, 1000000, 3)")),
    "a negative shape": zipped(header("(-1, 2, 3)")),
    "cut short": zipped(header("(480, 640, 3)") + b"\0" * 5),
    "a pickle": zipped(header("(1,)", "|O")),
    "a header that calls": zipped(header("__import__('os')")),
    "a header of another version": zipped(b"\x93NUMPY\x09\x00\x00\x00"),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_golden_file_is_a_bundle_error(tmp_path: Path, spec: Spec, data: bytes) -> None:
    with pytest.raises(BundleError, match=r"golden\.npz"):
        read_golden(bundle_of(tmp_path, spec, data))
