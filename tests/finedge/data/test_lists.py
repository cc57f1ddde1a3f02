"""Hand-written lists: what is unambiguous is read, the rest is refused with file, line and form."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finedge.data import open_dataset, read_folder
from finedge.errors import DataError
from tests.finedge.data.conftest import draw

NAMES = ("a/0.png", "a/1.png", "b c/0.png", "b c/1.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        draw(tmp_path / name)
    return tmp_path


def lines(
    separator: str = ",",
    labels: tuple[str, ...] = ("crow", "crow", "finch", "finch"),
    quote: str = "",
) -> str:
    return "".join(
        f"{name}{separator}{quote}{label}{quote}\n"
        for name, label in zip(NAMES, labels, strict=True)
    )


def read(root: Path, text: str | bytes, name: str = "train.csv"):
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_folder(root)


@pytest.mark.parametrize("separator", [",", ", ", "\t", ";", "; ", " , "])
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("name", ["train.csv", "train.txt", "Training.tsv"])
def test_separators_quotes_and_names(root, separator, quote, name):
    data = read(root, lines(separator, quote=quote), name)
    assert (data.layout, data.labels) == ("lists", ("crow", "finch"))
    assert [str(i.path.relative_to(root)) for i in data.splits["train"]] == list(NAMES)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_with_their_mark_and_line_ends(root, encoding, end):
    text = lines(labels=("p\u00e2querette",) * 2 + ("rose",) * 2).replace("\n", end)
    assert read(root, text.encode(encoding)).labels == ("p\u00e2querette", "rose")


@pytest.mark.parametrize(
    "header",
    ["path,label", "image,class", "Filename,Class Name", "file_name, category", '"path","label"'],
)
def test_a_header_names_the_columns(root, header):
    assert read(root, header + "\n" + lines()).labels == ("crow", "finch")


def test_a_header_may_name_the_columns_in_another_order_and_more_of_them(root):
    rows = "".join(
        f"{i},{label},{name},48\n"
        for i, (name, label) in enumerate(
            zip(NAMES, ("crow", "crow", "finch", "finch"), strict=True)
        )
    )
    assert read(root, ",label,path,width\n" + rows).labels == ("crow", "finch")


def test_a_column_of_splits_may_say_what_the_file_is(root):
    rows = "".join(f"{name},{label},Training\n" for name, label in zip(NAMES, "aabb", strict=True))
    assert len(read(root, "path,label,split\n" + rows).split("train")) == 4


def test_caffes_form(root):
    text = "".join(f"{name} {i // 2}\n" for i, name in enumerate(NAMES))
    data = read(root, text, "train.txt")
    assert [i.label for i in data.splits["train"]] == [0, 0, 1, 1]
    assert [str(i.path.relative_to(root)) for i in data.splits["train"]] == list(NAMES)


@pytest.mark.parametrize(
    ("written", "labels", "indices"),
    [
        (("0", "1"), ("0", "1"), [0, 1]),
        (("1", "2"), ("1", "2"), [0, 1]),
        (("8712345678906", "4006381333931"), ("4006381333931", "8712345678906"), [1, 0]),
        (("\u00b2", "1"), ("1", "\u00b2"), [1, 0]),
        (("1998", "2024"), ("1998", "2024"), [0, 1]),
        (("007", "7"), ("007", "7"), [0, 1]),
        (("00", "01"), ("00", "01"), [0, 1]),
        (("999999999", "0"), ("0", "999999999"), [1, 0]),
        (("\u0661", "\u0660"), ("\u0660", "\u0661"), [1, 0]),
        (("-1", "0"), ("-1", "0"), [0, 1]),
        (('"pepper, red"', '"pepper, green"'), ("pepper, green", "pepper, red"), [1, 0]),
    ],
)
def test_labels_are_text_unless_they_are_exactly_zero_to_n(root, written, labels, indices):
    data = read(root, lines(labels=(written[0],) * 2 + (written[1],) * 2))
    assert data.labels == labels
    assert [i.label for i in data.splits["train"]] == [indices[0]] * 2 + [indices[1]] * 2


@pytest.mark.parametrize("written", [("0", "1"), ("Gala", "Kiwi"), ("1", "Gala")])
def test_classes_csv_numbers_the_labels(root, written):
    (root / "classes.csv").write_text(
        'name,id,coarse\nGala,0,"Apple, red"\nKiwi,1,Kiwi\nPear,2,Pear\n'
    )
    data = read(root, lines(labels=(written[0],) * 2 + (written[1],) * 2))
    assert data.labels == ("Gala", "Kiwi", "Pear")
    assert {i.label for i in data.splits["train"]} == {0, 1}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a/0.png\nb c/0.png\n", 1),
        ("a/0.png,crow\nb c/0.png,pepper, red\n", 2),
        ("a/0.png,crow\n\nb c/0.png,\n", 3),
        ("a/0.png,crow\n,finch\n", 2),
        ('a/0.png,crow\nb c/0.png,"finch\n', 2),
        ("crow,a/0.png\nfinch,b c/0.png\n", 1),
        ("path,label\na/0.png,crow,4\n", 2),
        ("a/0.png,crow\na/0.png,finch\n", 2),
        ("a/0.png,crow\n./a/0.png,finch\n", 2),
        ("a/0.png,crow\nb c/0.png,fi\0nch\n", 2),
        ("a/0.png,crow\nb c/0.png,fi\x1bnch\n", 2),
        (b"a/0.png,crow\nb c/0.png,p\xe2querette\n", 2),
        (b"\xff\xfea\0", 1),
        ("a/0.png,crow\na/1.png,crow\n", 1),
        ("photos of 2024", 1),
        ("id,breed\na/0.png,crow\nb c/0.png,finch\n", 1),
        ("path,label,split\na/0.png,crow,train\nb c/0.png,finch,valid\n", 3),
        ("Subset,path,label\nTest,a/0.png,crow\ntrain,b c/0.png,finch\n", 2),
    ],
)
def test_a_bad_line_is_refused_with_file_line_and_form(root, text, line):
    with pytest.raises(DataError, match=rf"train\.csv, lines? {line}\b") as error:
        read(root, text)
    assert error.value.expected


@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
def test_an_empty_list_is_refused(root, name):
    with pytest.raises(DataError, match="is empty"):
        read(root, "\n \n", name)


@pytest.mark.parametrize(
    "classes",
    [
        *("Gala,0\nKiwi,2\n", "Gala,0\nKiwi,0\n", "Gala,0\nGala,1\n", "name,id\nGala,x\n"),
        *("name\n", "", "Gala,0\nKiwi,999999999999999999999\n"),
    ],
)
def test_a_classes_csv_with_gaps_is_refused(root, classes):
    (root / "classes.csv").write_text(classes)
    with pytest.raises(DataError, match=r"classes\.csv"):
        read(root, lines(labels=("0", "0", "1", "1")))


@pytest.mark.parametrize("label", ["2", "999999999", "Pear", "\u0660"])
def test_a_label_that_classes_csv_does_not_have_is_refused(root, label):
    (root / "classes.csv").write_text("name,id\nGala,0\nKiwi,1\n")
    with pytest.raises(DataError, match=r"train\.csv, line 3: label"):
        read(root, lines(labels=("0", "0", label, "1")))


@pytest.mark.parametrize("content", [b"photos of 2024", b"", b"Gr\xfc\xdfe", b"milk, eggs\nbread"])
def test_a_text_file_beside_class_folders_is_not_a_list_and_is_reported(root, content):
    data = read(root, content, "train.txt")
    assert (data.layout, data.labels) == ("folder", ("a", "b c"))
    assert data.notes == ("train.txt names no picture: it is not a list",)


def test_a_broken_list_is_no_stray_file(root):
    with pytest.raises(DataError, match=r"train\.txt, line 1"):
        read(root, "a/0.png|crow", "train.txt")


def test_two_lists_for_one_split_are_refused(root):
    (root / "train.txt").write_text(lines())
    with pytest.raises(DataError, match=r"train\.csv, train\.txt|train\.txt, train\.csv"):
        read(root, lines())


def test_names_of_the_other_lists(root):
    for name in ("valid.csv", "Testing.csv"):
        (root / name).write_text("a/0.png,crow\n")
    data = read(root, lines())
    assert (len(data.splits["val"]), len(data.splits["test"])) == (1, 1)


def test_absolute_paths_backslashes_and_links_out_of_the_folder(root, tmp_path_factory):
    other = draw(tmp_path_factory.mktemp("far") / "far.png")
    rows = (
        f"{root / 'a/0.png'},crow",
        "a\\1.png,crow",
        f"{other},finch",
        f"../{other.parent.name}/x.png,finch",
    )
    text = "".join(f"{row}\n" for row in rows)
    data = read(root, text)
    assert [i.path for i in data.splits["train"][:3]] == [root / "a/0.png", root / "a/1.png", other]


def test_a_line_that_stands_twice_is_taken_once_and_counted(root):
    data = read(root, lines() + "a/0.png,crow\n")
    assert len(data.splits["train"]) == 4
    assert {x.reason: x.count for x in data.left_out} == {"a line of a list that appears twice": 1}


def test_pictures_that_no_list_names_are_counted(root):
    data = read(root, "a/0.png,crow\nb c/0.png,finch\n")
    assert {x.reason: x.count for x in data.left_out} == {"a picture that no list names": 2}


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_pipe_or_folder_in_a_list_is_refused_and_never_waited_for(root, kind):
    os.mkfifo(root / "p.png") if kind == "pipe" else (root / "p.png").mkdir()
    with pytest.raises(DataError, match=r"train\.csv, line 5: 'p\.png' is not a regular file"):
        read(root, lines() + "p.png,crow\n")


def test_paths_that_lead_nowhere_are_refused_at_once(root):
    with pytest.raises(DataError, match=r"none of the 2 images .* exists, first: .*x/0\.png"):
        read(root, "x/0.png,crow\ny/0.png,finch\n")


def test_a_name_that_no_file_can_have_is_a_missing_file(root):
    data = read(root, lines() + f"{'x' * 5000}.png,crow\n")
    assert len(data.splits["train"]) == 5
    assert open_dataset(root).labels == ("crow", "finch")


@pytest.mark.parametrize(
    "table", ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"]
)
@pytest.mark.parametrize(
    "content",
    [
        "",
        "1\n",
        "x y\n",
        "1 5 6\n",
        "\u00b9 1\n",
        "999999999999999999999 1\n",
        "1 a\n1 a\n",
        "-1 1\n",
    ],
)
def test_a_damaged_table_of_cub_is_a_data_error(root, table, content):
    good = {
        "images.txt": "1 a/0.png\n2 b/0.png\n",
        "image_class_labels.txt": "1 1\n2 2\n",
        "train_test_split.txt": "1 1\n2 1\n",
        "classes.txt": "1 crow\n2 finch\n",
    }
    for name, text in {**good, table: content}.items():
        (root / name).write_text(text)
    with pytest.raises(DataError):
        open_dataset(root)
