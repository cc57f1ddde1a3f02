import json
import subprocess
import sys

import pytest

from finedge.data import open_dataset
from finedge.errors import DataError, UsageError
from finedge.image import read_image
from finedge.synthetic.command import render
from finedge.synthetic.species import SPECIES

SMALL = {"classes": 4, "train": 3, "val": 2, "test": 2, "size": 48}


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.jpg")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("render") / "birds"
    render(out, **SMALL)
    return out


def test_the_folder_reads_as_a_data_set_with_its_own_splits(small):
    data = open_dataset(small)
    assert data.layout == "split-folders"
    assert data.labels == tuple(sorted(s.name for s in SPECIES[:4]))
    assert {s: len(data.split(s)) for s in ("train", "val", "test")} == {
        "train": 12,
        "val": 8,
        "test": 8,
    }
    assert data.cut is None
    assert read_image(data.split("train")[0].path).shape == (48, 48, 3)


def test_every_picture_is_different(small):
    assert len(set(contents(small).values())) == 4 * 7


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(small, tmp_path):
    render(tmp_path / "again", **SMALL)
    render(tmp_path / "other", **SMALL, seed=1)
    assert contents(tmp_path / "again") == contents(small)
    assert not set(contents(tmp_path / "other").values()) & set(contents(small).values())


def test_a_smaller_set_is_part_of_a_larger_one(small, tmp_path):
    render(tmp_path / "few", **{**SMALL, "classes": 2, "train": 1})
    assert contents(tmp_path / "few").items() <= contents(small).items()


def test_the_same_arguments_again_change_nothing(small):
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    assert render(small, **SMALL) == {"out": str(small), "classes": 4, "images": 28, "rendered": 0}
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == before


def test_other_arguments_replace_our_own_folder(tmp_path):
    render(tmp_path / "birds", **SMALL)
    assert render(tmp_path / "birds", **{**SMALL, "train": 1})["rendered"] == 20
    assert len(contents(tmp_path / "birds")) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["birds"]


def test_a_missing_picture_is_rendered_again(tmp_path):
    render(tmp_path / "birds", **SMALL)
    whole = contents(tmp_path / "birds")
    next((tmp_path / "birds").rglob("*.jpg")).unlink()
    assert render(tmp_path / "birds", **SMALL)["rendered"] == 28
    assert contents(tmp_path / "birds") == whole


def test_an_empty_folder_is_filled(tmp_path):
    assert render(tmp_path, **SMALL)["rendered"] == 28


@pytest.mark.parametrize("name", ["holiday.jpg", "train/dog/1.jpg"])
def test_a_foreign_folder_is_refused_and_kept(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(DataError, match=name):
        render(tmp_path, **SMALL)
    assert (tmp_path / name).read_bytes() == b"mine"


def test_a_file_of_the_user_among_ours_is_refused_and_kept(tmp_path):
    render(tmp_path / "birds", **SMALL)
    (tmp_path / "birds" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt"):
        render(tmp_path / "birds", **{**SMALL, "seed": 9})
    assert (tmp_path / "birds" / "notes.txt").read_text() == "mine"


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "birds").write_text("mine")
    with pytest.raises(DataError, match="is a file"):
        render(tmp_path / "birds", **SMALL)


def test_a_render_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("finedge.synthetic.command.encoded_image", full)
    with pytest.raises(OSError, match="No space"):
        render(tmp_path / "birds", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bad",
    [
        {"classes": 1},
        {"classes": len(SPECIES) + 1},
        {"train": 0},
        {"val": -1},
        {"size": 8},
        {"seed": -1},
    ],
)
def test_an_argument_out_of_range_is_named_with_its_value(tmp_path, bad):
    (name, value), *_ = bad.items()
    with pytest.raises(UsageError, match=f"--{name} is {value}"):
        render(tmp_path / "birds", **{**SMALL, **bad})


def test_the_command_line_prints_one_json_object_and_stays_quiet(tmp_path):
    words = [
        "data",
        "render",
        str(tmp_path / "birds"),
        "--classes",
        "2",
        "--train",
        "1",
        "--val",
        "0",
        "--test",
        "1",
        "--size",
        "32",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "finedge", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "out": str(tmp_path / "birds"),
        "classes": 2,
        "images": 4,
        "rendered": 4,
    }
    assert done.stderr == ""
