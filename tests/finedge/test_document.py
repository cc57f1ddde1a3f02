from __future__ import annotations

import json
from pathlib import Path

import pytest

from finedge.document import MAX_BYTES, read_json
from finedge.errors import BundleError, DataError


def read(path: Path) -> object:
    return read_json(path, error=BundleError, fix="mend it")


@pytest.mark.parametrize("value", [{}, [], "é", 1, -1.5, None, {"a": [{"b": "日本"}]}])
def test_what_json_has_is_read(tmp_path: Path, value: object) -> None:
    file = tmp_path / "f.json"
    file.write_text(json.dumps(value))
    assert read(file) == value
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(value, ensure_ascii=False).encode())
    assert read(file) == value, "a byte order mark is no part of the text"


BAD = {
    "empty": b"",
    "cut short": b'{"a": ',
    "latin-1": '{"a": "é"}'.encode("latin-1"),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "nan": b'{"a": NaN}',
    "infinity": b"[Infinity]",
    "minus infinity": b"[-Infinity]",
    "a float that overflows": b"[1e999]",
    "a key twice": b'{"a": 1, "b": 2, "a": 3}',
    "a lone surrogate": b'["\\ud800"]',
    "a lone surrogate as a key": b'{"a": {"\\udfff": 1}}',
    "an integer of 100 digits": b"1" * 100,
    "an integer of 5000 digits": b"[" + b"1" * 5000 + b"]",
    "65 levels": b"[" * 65 + b"]" * 65,
    "100,000 levels": b"[" * 100_000,
    "100,000 levels of objects": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_fault_of_the_text_is_typed_and_names_the_file(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "f.json"
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"f\.json") as error:
        read(file)
    assert "mend it" in str(error.value)


def test_64_levels_are_read(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text("[" * 64 + "]" * 64)
    assert isinstance(read(tmp_path / "f.json"), list)


def test_a_folder_a_pipe_and_a_huge_file_are_refused_unread(tmp_path: Path) -> None:
    import os

    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    for name in ("folder", "pipe", "huge"):
        with pytest.raises(BundleError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["none", "a" * 300, "nul\0", "none/below"])
def test_what_is_not_there_is_the_callers_to_explain(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / name, error=DataError, fix="")
