"""The cache of wheels, with a wheel of our own in a local folder instead of the index."""

import zipfile
from hashlib import sha256

import pytest

from tests import wheels
from tests.wheels import Wheel, WheelMissing, folder, pinned

NAME = "finedge-probe"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder with one wheel that pip looks into, and an empty cache; returns the wheel's hash."""
    links = tmp_path / "links"
    links.mkdir()
    path = links / "finedge_probe-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("probe.py", "ANSWER = 42\n")
        metadata = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n"
        archive.writestr("finedge_probe-1.0.dist-info/METADATA", metadata)
        archive.writestr("finedge_probe-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("finedge_probe-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wheels._fetch.cache_clear()
    return sha256(path.read_bytes()).hexdigest()


def probe(digest, *, version="1.0", marker=""):
    return Wheel(NAME, version, f"{NAME}=={version}{marker} --hash=sha256:{digest}")


def test_a_wheel_is_extracted_once_and_found_again(index, tmp_path, monkeypatch):
    extracted = folder(probe(index))
    assert (extracted / "probe.py").read_text() == "ANSWER = 42\n"
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert folder(probe(index)) == extracted
    assert [path.name for path in wheels.cache().iterdir()] == [extracted.name]


def test_a_wheel_with_another_hash_is_an_error_not_a_skip(index):
    with pytest.raises(ValueError, match=r"DO NOT MATCH"):
        folder(probe("0" * 64))
    assert not list(wheels.cache().iterdir())


def test_a_wheel_that_the_index_lacks_is_missing_with_pips_reason(index):
    with pytest.raises(WheelMissing, match=r"finedge-probe==2\.0.*No matching distribution"):
        folder(probe(index, version="2.0"))


def test_without_any_version_the_reason_asks_for_the_network(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(WheelMissing, match=r"No matching distribution .*: is there a network\?"):
        folder(probe(index))


def test_a_cache_that_cannot_be_written_is_a_reason_to_skip(index, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WheelMissing, match=r"the cache cannot be written .*Not a directory"):
        folder(probe(index))


def test_a_wheel_for_other_pythons_is_missing(index):
    with pytest.raises(WheelMissing, match=r"no wheel for Python 3"):
        folder(probe(index, marker='; python_version < "3.0"'))


def test_a_wheel_for_another_python_has_a_folder_of_its_own(index):
    wheel = probe(index)
    assert folder(wheel, python="3.12") != folder(wheel, python="3.10")


def test_a_list_has_comments_and_continued_lines(tmp_path):
    path = tmp_path / "wheels.txt"
    path.write_text("# two hashes\none==1.2 \\\n    --hash=sha256:a \\\n    --hash=sha256:b\n")
    (wheel,) = pinned(path).values()
    assert (str(wheel), wheel.requirement) == (
        "one==1.2",
        "one==1.2 --hash=sha256:a --hash=sha256:b",
    )
