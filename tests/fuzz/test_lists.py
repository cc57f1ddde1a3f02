"""Foreign lists of images, tables and stored splits are read, or refused with a typed error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finedge.data import read_folder
from finedge.data.layouts.rows import read_list
from finedge.data.stored_split import read_text, unpack
from finedge.errors import DataError

LIST = 'path,label\na/0.png,crow\na/1.png,"pepper, red"\nb/0.png,7\nb\\1.png,0\n'
TABLES = {
    "images.txt": "1 a/0.png\n2 b/0.png\n3 a/1.png\n",
    "image_class_labels.txt": "1 1\n2 2\n3 1\n",
    "train_test_split.txt": "1 1\n2 1\n3 0\n",
    "classes.txt": "1 crow\n2 finch\n",
}
CLASSES = "name,id\ncrow,0\nfinch,1\n"
STORED = (
    '{"train": [["a/0.png", 0, "' + "0" * 64 + '"], ["b/0.png", 1]], "val": [], "cut": {"seed": 0}}'
)
PIECES = [
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b",", b";", b"\t", b"\n", b"\r", b"999999999999"),
    *(b"-1", b"\xc2\xb2", b"\xe9", b"../", b"/dev/zero", b"x" * 300, b"[" * 50),
]


@st.composite
def mutated(draw: st.DrawFn, text: str) -> bytes:
    """Return a valid file with a few bytes replaced, removed, doubled or added.

    It may have another encoding.
    """
    encodings = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-le", "latin-1")
    data = text.encode(draw(st.sampled_from(encodings)), "replace")
    for _ in range(draw(st.integers(0, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 6))
        piece = draw(
            st.one_of(
                st.sampled_from(PIECES), st.binary(max_size=4), st.just(data[at : at + 20] * 2)
            )
        )
        data = data[:at] + piece + data[at + length :]
    return data


def contents(text: str) -> st.SearchStrategy[bytes]:
    return st.one_of(
        mutated(text),
        st.text(max_size=80).map(lambda t: t.encode("utf-8", "replace")),
        st.binary(max_size=80),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode())
    os.mkfifo(folder / "p.png")
    return folder


def read_or_refuse(folder: Path) -> None:
    try:
        data = read_folder(folder)
    except DataError:
        return
    assert all(
        0 <= i.label < len(data.labels) < 1000 for items in data.splits.values() for i in items
    )


@pytest.mark.parametrize("examples", [200, pytest.param(4_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["train.csv", "train.txt"])
def test_no_list_raises_an_untyped_error(root: Path, examples: int, name: str) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(train=contents(LIST), classes=st.one_of(st.none(), contents(CLASSES)))
    def check(train: bytes, classes: bytes | None) -> None:
        files = {name: train, **({"classes.csv": classes} if classes is not None else {})}
        for file, content in files.items():
            (root / file).write_bytes(content)
        try:
            read_or_refuse(root)
        finally:
            for file in files:
                (root / file).unlink()

    check()


@pytest.mark.parametrize("examples", [200, pytest.param(4_000, marks=pytest.mark.slow)])
def test_no_table_of_cub_raises_an_untyped_error(root: Path, examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(which=st.sampled_from(sorted(TABLES)), data=st.data())
    def check(which: str, data: st.DataObject) -> None:
        content = data.draw(contents(TABLES[which]))
        for file, text in TABLES.items():
            (root / file).write_bytes(content if file == which else text.encode())
        try:
            read_or_refuse(root)
        finally:
            for file in TABLES:
                (root / file).unlink()

    check()


@pytest.mark.parametrize("examples", [200, pytest.param(4_000, marks=pytest.mark.slow)])
def test_no_stored_split_raises_an_untyped_error(examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(content=contents(STORED), packed=st.booleans())
    def check(content: bytes, packed: bool) -> None:
        try:
            if packed:
                unpack(content, source="split.json.gz")
            else:
                read_text(content.decode("utf-8", "replace"), source="split.json")
        except DataError:
            pass

    check()


def test_the_unchanged_files_are_read(root: Path) -> None:
    """Else the fuzz would look at refusals only."""
    (root / "train.csv").write_text(LIST)
    assert len(read_list(root / "train.csv")) == 4
    (root / "train.csv").unlink()
    for file, text in TABLES.items():
        (root / file).write_text(text)
    assert read_folder(root).layout == "cub"
    for file in TABLES:
        (root / file).unlink()
    assert len(read_text(STORED, source="x").splits["train"]) == 2
