from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from finedge.runtime.trt.build.seal import is_trusted, sealed

from .conftest import BOARDS, INSTALL, OTHERS, Root, make_root, script

FORBIDDEN = ("tensorrt", "opencv", "torch")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the step it tests does")


def pip_calls(root: Root) -> list[str]:
    return [call for call in root.calls if call.startswith("venv-python -m pip")]


def test_a_board_is_set_up(jetson: Root) -> None:
    process = jetson.run()
    assert process.returncode == 0, process.stderr
    assert [call.split()[:3] for call in jetson.calls] == [
        ["python", "-m", "venv"],
        ["venv-python", "-m", "pip"],
        ["finedge", "doctor"],
    ]
    assert "--system-site-packages" in jetson.calls[0]
    assert f"tensorrt {jetson.board.tensorrt}" in process.stdout
    assert (jetson.current / "installed.txt").is_file()
    launched = subprocess.run(
        [jetson.path / "opt/finedge/bin/finedge", "x"],
        env={"CALLS": "/dev/stdout"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert launched.stdout.startswith("finedge x")


def test_pip_installs_only_finedge_and_the_binding_of_the_boards_cuda(jetson: Root) -> None:
    jetson.run()
    (call,) = pip_calls(jetson)
    *options, source, binding = call.split()
    # A copy of the checkout, with what the live page needs.
    assert source == f"{jetson.current}.source[events]"
    assert binding == (
        "cuda-python==12.6.*" if jetson.board.python == "3.10" else "cuda-bindings>=13,<14"
    )
    assert not [word for word in (*options, binding) if any(name in word for name in FORBIDDEN)]
    assert f"constraints-jetpack{6 if jetson.board.python == '3.10' else 7}.txt" in options[-1]


def test_a_second_run_does_nothing(jetson: Root) -> None:
    jetson.run("--service") if os.geteuid() == 0 else jetson.run()
    before, files = (
        list(jetson.calls),
        {p: p.lstat().st_mtime_ns for p in jetson.path.rglob("*") if p.name != "calls"},
    )
    process = jetson.run("--service") if os.geteuid() == 0 else jetson.run()
    assert process.returncode == 0
    assert "up to date" in process.stdout
    assert jetson.calls == before
    assert {p: p.lstat().st_mtime_ns for p in files if p.is_file()} == {
        p: t for p, t in files.items() if p.is_file()
    }


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(jetson: Root) -> None:
    process = jetson.run("--dry-run", "--service")
    assert process.returncode == 0, process.stderr
    assert jetson.calls == []
    assert not (jetson.path / "opt").exists()
    assert not (jetson.path / "etc/systemd").exists()
    assert re.search(r"^would +make .*/versions/\w+, install finedge", process.stdout, re.MULTILINE)
    assert re.search(r"^would +write .*finedge.service", process.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "message", "fix"),
    [
        ("desktop", "this is not a Jetson", "python3 -m venv"),
        ("jetpack 5", "L4T 35.4.1 is not supported", "install JetPack 6.1 or newer"),
        ("jetpack 6.0", "TensorRT 8.6.2 is too old", "JetPack 6.1"),
        ("jetpack 8", "L4T 40.1.0 is not supported", "JetPack 7"),
        ("another file", "says 'release forty'", "expected"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_other_machines_are_refused_with_what_to_do(
    options: list[str], name: str, message: str, fix: str, tmp_path: Path
) -> None:
    root = make_root(tmp_path / "root", OTHERS[name])
    process = root.run(*options)
    assert process.returncode == 3
    assert message in process.stderr
    assert fix in process.stderr.split("to do:")[1]
    assert root.calls == []
    assert not (root.path / "opt").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--bogus"],
        ["--prefix"],
        ["--prefix", "/a folder"],
        ["--from", "/nowhere"],
        ["--from", "/usr"],
    ],
)
def test_wrong_options_exit_2(options: list[str], orin: Root) -> None:
    assert orin.run(*options).returncode == 2
    assert orin.calls == []


def test_the_prefix_is_the_users(orin: Root, tmp_path: Path) -> None:
    assert orin.run("--prefix", str(tmp_path / "mine")).returncode == 0
    assert (tmp_path / "mine/current/bin/finedge").is_file()
    assert str(tmp_path / "mine/current/bin/finedge") in (tmp_path / "mine/bin/finedge").read_text()
    assert not (orin.path / "opt").exists()


@pytest.mark.parametrize(("fault", "code"), [("pip-fails", 4), ("doctor-fails", 5)])
def test_a_failed_step_leaves_what_was_there(fault: str, code: int, orin: Root) -> None:
    orin.run()
    before = orin.current
    # JetPack was updated: another version is made.
    (orin.path / "dist/tensorrt/__init__.py").write_text('__version__ = "10.7.0"\n')
    (orin.path / fault).touch()
    process = orin.run()
    assert process.returncode == code
    assert "to do:" in process.stderr
    assert orin.current == before
    assert [p.name for p in before.parent.iterdir()] == [before.name]
    (orin.path / fault).unlink()
    assert orin.run().returncode == 0
    assert orin.current != before
    assert before.is_dir()


def test_an_interrupted_installation_is_made_again(orin: Root) -> None:
    orin.run()
    (orin.current / "installed.txt").unlink()
    assert orin.run().returncode == 0
    assert (orin.current / "installed.txt").is_file()
    assert len(pip_calls(orin)) == 2


def test_a_version_is_on_the_disk_before_it_is_marked_complete(orin: Root) -> None:
    """After a power failure, a file that was not synced has a name and no bytes."""
    script(
        orin.path / "stubs/sync",
        """#!/bin/bash
[ "$1" != -f ] && exit
echo "sync, installed.txt: $(ls "${@: -1}" | grep -c installed.txt)" >>"$CALLS"
""",
    )
    assert orin.run().returncode == 0
    assert orin.calls[-2:] == ["finedge doctor", "sync, installed.txt: 0"]


def test_a_second_run_at_once_is_refused_and_the_first_completes(orin: Root) -> None:
    (orin.path / "pip-waits").touch()
    with orin.start() as first:
        deadline = time.monotonic() + 30
        while not (orin.path / "pip-is-there").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second = orin.run()
        (orin.path / "pip-waits").unlink()
        first.communicate()
    assert (first.returncode, second.returncode) == (0, 4)
    assert "another install.sh is at work" in second.stderr
    assert (orin.current / "installed.txt").is_file()


def test_other_users_may_run_what_root_installs_with_any_umask(orin: Root) -> None:
    before = os.umask(0o077)
    try:
        assert orin.run().returncode == 0
    finally:
        os.umask(before)
    opt = orin.path / "opt"
    assert all(
        p.stat().st_mode & 0o044 == 0o044 for p in (opt, *opt.rglob("*")) if p.name != ".changed"
    )


def test_other_sources_make_another_version(orin: Root) -> None:
    orin.run()
    before = orin.current
    (orin.path / "checkout/runtime/__init__.py").write_text("# better\n")
    assert orin.run().returncode == 0
    assert orin.current != before


def test_the_version_before_stays_and_older_ones_go(orin: Root) -> None:
    versions = []
    for version in ("10.3.0", "10.4.0", "10.5.0"):
        (orin.path / "dist/tensorrt/__init__.py").write_text(f'__version__ = "{version}"\n')
        assert orin.run().returncode == 0
        versions.append(orin.current.name)
    assert {p.name for p in orin.current.parent.iterdir()} == set(versions[1:])


def test_an_opencv_that_came_from_pip_fails_the_check(orin: Root) -> None:
    file = orin.path / "dist/cv2/__init__.py"
    file.write_text(
        file.read_text()
        + 'import sys\n\n__file__ = sys.prefix + "/lib/site-packages/cv2/__init__.py"\n'
    )
    process = orin.run()
    assert process.returncode == 5
    assert "['cv2'] came from pip" in process.stderr
    assert not (orin.path / "opt/finedge/current").exists()
    assert list((orin.path / "opt/finedge/versions").iterdir()) == []


def test_an_opencv_without_gstreamer_is_a_warning(orin: Root) -> None:
    file = orin.path / "dist/cv2/__init__.py"
    file.write_text(file.read_text().replace("YES (1.20.3)", "NO"))
    process = orin.run()
    assert process.returncode == 0
    assert "no GStreamer" in process.stdout
    assert "pip3 uninstall opencv-python" in process.stdout


@as_root
def test_a_dangling_command_is_replaced_and_any_other_is_kept(orin: Root) -> None:
    command = orin.path / "usr/local/bin/finedge"
    command.parent.mkdir(parents=True)
    command.symlink_to("/gone/bin/finedge")
    assert orin.run().returncode == 0
    assert command.readlink() == orin.path / "opt/finedge/bin/finedge"
    command.unlink()
    command.write_text("mine")
    assert orin.run().returncode == 0
    assert command.read_text() == "mine"


@as_root
def test_what_jetpack_lacks_comes_from_apt(orin: Root) -> None:
    (orin.path / "apt").mkdir()
    for name in ("tensorrt", "cv2"):
        shutil.move(orin.path / "dist" / name, orin.path / "apt" / name)
    process = orin.run()
    assert process.returncode == 0, process.stderr
    assert (
        orin.calls[0]
        == "apt-get install -y --no-install-recommends python3-libnvinfer nvidia-opencv"
    )


@as_root
def test_a_package_that_apt_does_not_install_exits_3(orin: Root) -> None:
    shutil.rmtree(orin.path / "dist/tensorrt")
    process = orin.run()
    assert process.returncode == 3
    assert "cannot import tensorrt" in process.stderr
    assert pip_calls(orin) == []


def test_packages_of_a_home_are_not_seen(orin: Root) -> None:
    orin.environment["PYTHONUSERBASE"] = str(orin.path / "home")
    script = orin.path / "usr/bin/python3.10"
    script.write_text(
        script.read_text().replace('echo "python', 'echo "nousersite=$PYTHONNOUSERSITE python')
    )
    orin.run()
    assert all(call.startswith("nousersite=1") for call in orin.calls if "python -m venv" in call)
    assert "PYTHONNOUSERSITE=1" in (orin.path / "opt/finedge/bin/finedge").read_text()


@as_root
def test_the_service_is_installed_and_enabled_but_not_started(jetson: Root) -> None:
    for node in (
        "nvmap",
        "nvhost-ctrl-gpu",
        "nvgpu/igpu0/ctrl",
        "dri/renderD128",
        "v4l2-nvdec",
        "nvme0n1",
        "nvram",
        "video0",
        "sda",
    ):
        (jetson.path / "dev" / node).parent.mkdir(parents=True, exist_ok=True)
        (jetson.path / "dev" / node).touch()
    process = jetson.run("--service")
    assert process.returncode == 0, process.stderr
    units = jetson.path / "etc/systemd/system"
    assert (
        f"ExecStart={jetson.path}/opt/finedge/bin/finedge classify"
        in (units / "finedge.service").read_text()
    )
    extra = (units / "finedge.service.d/10-board.conf").read_text().splitlines()
    nodes = (
        "/dev/dri/renderD128",
        "/dev/nvgpu/igpu0/ctrl",
        "/dev/nvhost-ctrl-gpu",
        "/dev/nvmap",
        "/dev/v4l2-nvdec",
    )
    assert [line for line in extra if line.startswith("DeviceAllow")] == [
        f"DeviceAllow={node} rw" for node in nodes
    ]
    assert ("RestartSteps=6" in extra) == (jetson.board.systemd >= 254)
    systemctl_calls = [call for call in jetson.calls if call.startswith("systemctl")]
    assert systemctl_calls == [
        "systemctl daemon-reload",
        "systemctl enable --quiet finedge.service",
        "systemctl try-restart finedge.service",
    ]
    assert (jetson.path / "etc/finedge/finedge.env").stat().st_mode & 0o777 == 0o600
    assert "systemctl restart finedge" in process.stdout


@as_root
def test_the_service_trusts_the_engines_of_the_user_who_deploys(
    orin: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orin.environment |= {"SUDO_UID": "0", "SUDO_GID": "0"}
    process = orin.run("--service")
    assert process.returncode == 0, process.stderr
    home = pwd.getpwuid(0).pw_dir
    own, credential = (
        orin.path / f"{home}/.cache/finedge/engine.key".lstrip("/"),
        orin.path / "etc/finedge/engine.key",
    )
    assert own.read_text().strip() == credential.read_text().strip()
    assert [path.stat().st_mode & 0o777 for path in (own, credential)] == [0o600, 0o600]
    drop_in = orin.path / "etc/systemd/system/finedge.service.d/10-board.conf"
    assert "LoadCredential=engine.key:/etc/finedge/engine.key" in drop_in.read_text().splitlines()
    monkeypatch.setenv("FINEDGE_CACHE", str(own.parent))
    record = sealed({"built": "by the deploy"})
    monkeypatch.setenv("FINEDGE_CACHE", str(tmp_path / "cache-of-the-service"))
    assert not is_trusted(record)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credential.parent))  # as systemd sets it
    assert is_trusted(record)


@as_root
def test_a_key_that_is_there_stays(orin: Root) -> None:
    orin.environment |= {"SUDO_UID": "0", "SUDO_GID": "0"}
    own = orin.path / f"{pwd.getpwuid(0).pw_dir}/.cache/finedge/engine.key".lstrip("/")
    own.parent.mkdir(parents=True)
    own.write_text("k" * 64)
    orin.run("--service")
    assert own.read_text() == "k" * 64
    assert (orin.path / "etc/finedge/engine.key").read_text() == "k" * 64 + "\n"


@as_root
def test_for_a_user_without_a_home_the_service_has_no_key(orin: Root) -> None:
    orin.environment |= {"SUDO_UID": "4294967294", "SUDO_GID": "0"}
    process = orin.run("--service")
    assert process.returncode == 0, process.stderr
    assert "the service builds its engines itself" in process.stdout
    assert (
        "LoadCredential"
        not in (orin.path / "etc/systemd/system/finedge.service.d/10-board.conf").read_text()
    )


@as_root
def test_a_full_disk_leaves_the_unit_as_it_was(orin: Root) -> None:
    orin.run("--service")
    unit = orin.path / "etc/systemd/system/finedge.service"
    before = unit.read_text()
    template = orin.path / "checkout/jetson/finedge.service"
    template.write_text(template.read_text() + "# better\n")
    unit.with_name("finedge.service.new").symlink_to("/dev/full")
    process = orin.run("--service")
    assert process.returncode == 4
    assert "No space left" in process.stderr
    assert (unit.is_symlink(), unit.read_text()) == (False, before)


@as_root
def test_the_next_run_restarts_a_service_that_still_needs_it(orin: Root) -> None:
    orin.run("--service")
    assert orin.run("--service").returncode == 0
    assert orin.calls.count("systemctl try-restart finedge.service") == 1
    (orin.path / "dist/tensorrt/__init__.py").write_text('__version__ = "10.7.0"\n')
    (orin.path / "restart-fails").touch()
    process = orin.run("--service")
    assert process.returncode == 4
    assert "does not come up" in process.stderr
    (orin.path / "restart-fails").unlink()
    assert orin.run("--service").returncode == 0
    assert orin.calls[-2:] == ["systemctl daemon-reload", "systemctl try-restart finedge.service"]
    assert orin.calls.count("systemctl try-restart finedge.service") == 3


@as_root
def test_the_users_settings_are_never_written_again(orin: Root) -> None:
    orin.run("--service")
    settings = orin.path / "etc/finedge/finedge.env"
    settings.write_text("FINEDGE_SOURCES=csi://0\n")
    (orin.path / "dist/tensorrt/__init__.py").write_text('__version__ = "10.7.0"\n')
    assert orin.run("--service").returncode == 0
    assert settings.read_text() == "FINEDGE_SOURCES=csi://0\n"


@pytest.mark.parametrize("number", [6, 7])
def test_the_constraints_forbid_jetpacks_packages_and_end_with_cuda(number: int) -> None:
    lines = [
        line
        for line in (INSTALL.parent / f"constraints-jetpack{number}.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert {
        "opencv-python<0",
        "opencv-python-headless<0",
        "tensorrt<0",
        "torch<0",
        "numpy>=1.26,<2",
    } < set(lines)
    assert lines[-1].startswith("cuda-")


def test_the_help_names_every_exit_code() -> None:
    text = INSTALL.read_text()
    codes = re.search(r"^readonly (.*)$", text, re.MULTILINE)
    assert codes is not None
    text = subprocess.run(
        ["bash", INSTALL, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(re.search(rf"\b{pair.split('=')[1]}\b", text) for pair in codes[1].split())


def test_the_script_is_clean_to_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not here: apt-get install shellcheck")
    process = subprocess.run(["shellcheck", INSTALL], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout


def test_every_supported_board_is_in_the_readme() -> None:
    text = (INSTALL.parent / "README.md").read_text()
    assert all(f"{name.removeprefix('jetpack ')}" in text for name in BOARDS)
