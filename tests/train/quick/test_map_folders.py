import os
import subprocess
import sys

import pytest

from finedge.train.quick.map_folders import RECORD, remove_unused


@pytest.fixture
def place(tmp_path):
    """Four caches of 1,000 bytes and a record each; the first was used least recently."""
    for number in range(4):
        folder = tmp_path / f"{number:016x}"
        folder.mkdir()
        (folder / RECORD).write_text("{}")
        (folder / "train.0.bn2.npy").write_bytes(bytes(1000))
        os.utime(folder / RECORD, (number, number))
    return tmp_path


def names(place):
    return sorted(int(path.name, 16) for path in place.iterdir() if path.is_dir())


def test_the_least_recently_used_are_removed_to_fit_the_limit(place):
    remove_unused(place, keep=place / f"{3:016x}", room=500, limit=2600)
    assert names(place) == [2, 3]


def test_the_cache_that_is_wanted_next_stays(place):
    remove_unused(place, keep=place / f"{0:016x}", room=0, limit=0)
    assert names(place) == [0]


def test_nothing_is_removed_within_the_limit(place):
    assert remove_unused(place, keep=place / "x", room=0, limit=5000) == []
    assert names(place) == [0, 1, 2, 3]


def test_a_cache_that_another_process_uses_stays(place):
    used = place / f"{1:016x}"
    code = (
        "import sys; from pathlib import Path; from finedge.train.quick.map_folders import hold\n"
        "hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code, str(used)], stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        remove_unused(place, keep=place / "x", room=0, limit=0)
        assert names(place) == [1]
        process.stdin.close()


def test_folders_and_files_that_are_no_maps_stay(place):
    other = place / "holiday"
    other.mkdir()
    (other / RECORD).write_text("{}")
    (place / "notes.txt").write_text("mine")
    remove_unused(place, keep=place / "x", room=0, limit=0)
    assert sorted(path.name for path in place.iterdir()) == ["holiday", "notes.txt"]
