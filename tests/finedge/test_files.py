"""Files and folders are replaced atomically: through links, under any umask, after any kill."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from finedge import locks, temporary_files
from finedge.bundle import Bundle
from finedge.errors import BundleError
from finedge.files import new_folder, write_bytes, write_text


@pytest.fixture(autouse=True)
def _a_process_that_has_swept_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary_files, "_swept", set())


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_obey_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file", "x")
        write_bytes(tmp_path / "secret", b"x", mode=0o600)
        with new_folder(tmp_path / "folder") as work:
            (work / "inside").touch()
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert modes == {"file": 0o666 & ~umask, "folder": 0o777 & ~umask, "secret": 0o600}


def test_a_file_is_replaced_behind_its_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    for text in ("old", "new"):  # the first makes the file
        write_text(tmp_path / "link", text)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there/file").read_text() == "new"
    assert names(tmp_path / "there") == ["file"]


def test_links_in_a_circle_are_the_systems_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write_text(tmp_path / "a", "x")


def test_a_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError), new_folder(tmp_path / "file"):
        pass
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_bundle_behind_links_is_extended_and_the_links_stay(bundle: Bundle, slash: str) -> None:
    root = bundle.path.parent
    (root / "current").symlink_to(bundle.path.name)
    (root / "latest").symlink_to("current")
    Bundle.load(Path(f"{root / 'latest'}{slash}")).extend(
        "calibrate", {"model.int8.onnx": b"8"}, {}
    )
    assert names(root) == ["birds.finedge", "current", "latest"]
    assert (root / "current").is_symlink()
    assert (root / "latest").is_symlink()
    assert Bundle.load(bundle.path).variants() == ("fp32", "int8")


@pytest.mark.parametrize("here", ["", "engines", "engines/deep"])
def test_a_bundle_is_extended_from_inside(
    bundle: Bundle, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle.path / "engines" / "deep").mkdir(parents=True)
    monkeypatch.chdir(bundle.path / here)
    again = Path(os.path.relpath(bundle.path))
    written = Bundle.load(again).extend("calibrate", {"model.int8.onnx": b"8"}, {})
    assert written.file("model.int8.onnx").read_bytes() == b"8"
    assert Path.cwd() == bundle.path / here
    assert Bundle.load(again).variants() == ("fp32", "int8")


@pytest.mark.parametrize("at", ["link", "engines/link", "model.fp32.onnx", "engines"])
def test_a_link_in_a_bundle_is_refused(bundle: Bundle, at: str) -> None:
    inside = bundle.path / at
    if inside.is_file():
        inside.rename(bundle.path.parent / "elsewhere")
    inside.parent.mkdir(exist_ok=True)
    inside.symlink_to(bundle.path.parent / "elsewhere" if at == "model.fp32.onnx" else ".")
    with pytest.raises(BundleError, match="is a link"):
        Bundle.load(bundle.path)
    with pytest.raises(BundleError, match="is a link"):
        bundle.extend("calibrate", {}, {})


def test_a_pipe_in_a_bundle_is_refused(bundle: Bundle) -> None:
    os.mkfifo(bundle.path / "pipe")
    with pytest.raises(BundleError, match="not a file"):
        Bundle.load(bundle.path)


LEFT = (
    ".birds.finedge.new-x01234567",
    ".other.new-xabcdef01",
    ".birds.finedge.old-x01234567",
    ".birds.finedge.old-123",
)


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_a_kill_left_is_removed(bundle: Bundle, name: str, kind: str) -> None:
    left = bundle.path.parent / name
    left.mkdir() if kind == "folder" else left.touch()
    Bundle.load(bundle.path)
    assert names(bundle.path.parent) == ["birds.finedge"]


def test_what_version_0_1_left_is_removed(bundle: Bundle) -> None:
    (bundle.path.parent / ".birds.finedge.a1_cdefg").mkdir(mode=0o700)
    Bundle.load(bundle.path)
    assert names(bundle.path.parent) == ["birds.finedge"]


USERS_OWN = (
    ".birds.finedge.backup",
    ".birds.finedge.original",
    ".birds.finedge.old",
    ".birds.finedge.old-20261127",
    ".new-x01234567",
    ".git",
)


@pytest.mark.parametrize("name", USERS_OWN)
def test_hidden_names_of_the_user_stay(bundle: Bundle, name: str) -> None:
    (bundle.path.parent / name).mkdir(mode=0o755)
    Bundle.load(bundle.path).extend("calibrate", {}, {})
    assert names(bundle.path.parent) == sorted([name, "birds.finedge"])


def test_the_old_folder_of_another_target_that_is_missing_is_kept_for_it(bundle: Bundle) -> None:
    (bundle.path.parent / ".other.finedge.old-x01234567").mkdir()
    Bundle.load(bundle.path)
    assert ".other.finedge.old-x01234567" in names(bundle.path.parent)


def test_a_link_with_the_name_of_a_leftover_stays_and_its_target_too(
    bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (bundle.path.parent / ".birds.finedge.new-x01234567").symlink_to(tmp_path / "precious")
    Bundle.load(bundle.path)
    assert (tmp_path / "precious").is_dir()


WRITER = """
import sys
from pathlib import Path
from finedge.files import new_folder
with new_folder(Path(sys.argv[1])) as work:
    (work / "new").touch()
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_a_living_process_writes_is_left_alone(bundle: Bundle) -> None:
    command = [sys.executable, "-c", WRITER, str(bundle.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        Bundle.load(bundle.path)
        assert len(names(bundle.path.parent)) == 2, "the folder of a living process was taken away"
        writer.communicate("")
    assert writer.returncode == 0
    assert names(bundle.path) == ["new"]
    assert names(bundle.path.parent) == ["birds.finedge"]


def test_a_folder_that_somebody_locks_is_waited_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary_files, "MAX_WAIT_S", 0.05)
    with locks.locked(tmp_path) as alone:
        assert alone
        write_text(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "x"


def test_names_of_the_longest_length_can_be_written(tmp_path: Path) -> None:
    for name in ("a" * 255, "é" * 127):
        write_text(tmp_path / name, "x")
        write_text(tmp_path / name, "y")
        assert (tmp_path / name).read_text() == "y"
    assert len(names(tmp_path)) == 2


def test_a_process_does_not_wait_for_its_own_lock(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(_: float) -> None:
        raise AssertionError("waited for a lock that this process holds")

    monkeypatch.setattr(temporary_files.time, "sleep", waits)
    bundle.extend("calibrate", {"model.int8.onnx": b"8"}, {})
    assert Bundle.load(bundle.path).variants() == ("fp32", "int8")


def test_without_locks_nothing_is_awaited_and_nothing_is_removed(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def waits(_: float) -> None:
        raise AssertionError("waited where there are no locks")

    (bundle.path.parent / ".birds.finedge.new-x01234567").mkdir()
    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    monkeypatch.setattr(temporary_files.time, "sleep", waits)
    bundle.extend("calibrate", {"model.int8.onnx": b"8"}, {})
    assert Bundle.load(bundle.path).variants() == ("fp32", "int8")
    assert names(bundle.path.parent) == [".birds.finedge.new-x01234567", "birds.finedge"]
