from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finedge.bundle import Bundle
from finedge.errors import BundleError, FinedgeError, GateError, SystemProblem, UsageError
from finedge.jetson.deploy.command import deploy
from finedge.jetson.deploy.copy import refuse_unsendable
from finedge.jetson.deploy.remote import SshTarget
from finedge.jetson.deploy.scripts import ACTIVATE
from tests.jetson.deploy.conftest import LocalBoard, broken, changed, grouped, script

STEPS = ["connect", "lock", "copy", "digest", "build", "verify", "choose", "swap", "tidy"]
DEPLOY_KILLS, DEPLOY_S = 12, 6.0  # random moments, within the seconds that a deploy takes
SLOW = "300"  # kB/s: a few seconds for the megabytes below, in which a deploy can be killed


def names(result: dict[str, Any] | None) -> list[str]:
    assert result is not None
    return [s["name"] for s in result["steps"]]


def detail(result: dict[str, Any] | None, name: str) -> str:
    assert result is not None
    return next(s["detail"] for s in result["steps"] if s["name"] == name)


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.02)


def with_megabytes(bundle: Bundle) -> Bundle:
    """Return the bundle with a file that takes long on a slow link, and is sent first."""
    return bundle.extend("note", {"a.bin": os.urandom(3_000_000)}, {})


@contextmanager
def under_way(
    board: LocalBoard, bundle: Bundle, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a deploy in a session of its own, which is killed at the end."""
    with subprocess.Popen(
        board.command(bundle, *options),
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def in_mid_copy(board: LocalBoard, bundle: Bundle) -> Iterator[subprocess.Popen[bytes]]:
    """Run a deploy over a slow link until some of its largest file is there."""
    slow = board.local / "rsync"
    script(slow, f'#!/bin/sh\nexec {board.bin / "rsync"} --bwlimit={SLOW} "$@"\n')
    with under_way(board, bundle) as process:
        wait_until(
            lambda: any(
                p.stat().st_size > 100_000 for p in board.root.glob(".incoming-*/*/.a.bin*")
            )
        )
        slow.unlink()
        yield process


def test_the_first_deploy_makes_the_bundle_current(board: LocalBoard, birds: Bundle) -> None:
    (birds.path / "report.json").write_text("{}")  # of this machine: it stays here, as engines do
    result = board.deploy(birds)
    assert names(result) == STEPS
    assert all(s["ok"] for s in result["steps"])
    assert set(result) == {"host", "version", "steps", "rolled_back"}
    assert not result["rolled_back"]
    assert result["version"] in str(board.serving)
    copy = Bundle.load(board.serving)
    assert (copy.digest(), copy.name) == (birds.digest(), "birds")
    assert {p.name for p in board.serving.iterdir()} == {"manifest.json", *birds.files}
    assert "TensorRT cannot run there" in detail(result, "build")
    assert detail(result, "choose").startswith("auto runs int8 there")
    assert board.left_over == []


def test_an_older_finedge_there_cannot_compare_the_variants(
    board: LocalBoard, birds: Bundle
) -> None:
    finedge = (board.bin / "finedge").readlink()
    board.lacks("finedge")
    refuses = "echo \"finedge: unknown command 'choose'\" >&2; exit 2"
    text = f'#!/bin/sh\n[ "$1" = choose ] && {{ {refuses}; }}\nexec {finedge} "$@"\n'
    script(board.bin / "finedge", text)
    assert "too old" in detail(board.deploy(birds), "choose")


def test_a_changed_bundle_links_equal_files_and_removes_old_versions(
    board: LocalBoard, birds: Bundle
) -> None:
    versions = [board.deploy(birds, keep=1)["version"]]
    before = board.serving
    result = board.deploy(changed(birds, "second"), keep=1)
    assert Bundle.load(board.serving).provenance["note"] == {"text": "second"}
    assert detail(result, "copy").startswith("rsync sent 1 of")
    assert all((board.serving / name).samefile(before / name) for name in birds.files)
    assert Bundle.load(before).files == birds.files
    versions += [result["version"], board.deploy(changed(birds, "third"), keep=1)["version"]]
    assert board.versions == versions[1:]
    assert versions[2] in str(board.serving)


def test_a_golden_frame_that_fails_there_changes_nothing(board: LocalBoard, birds: Bundle) -> None:
    board.deploy(birds)
    before, versions = board.serving, board.versions
    with pytest.raises(GateError) as caught:
        board.deploy(broken(birds))
    assert caught.value.exit_code == 5
    assert "model.int8.cpu.onnx" in caught.value.what
    assert names(caught.value.result)[-1] == "verify"
    assert caught.value.result["rolled_back"]
    assert (board.serving, board.versions, board.left_over) == (before, versions, [])


def test_lost_bytes_are_an_error_before_anything_runs(board: LocalBoard, birds: Bundle) -> None:
    board.lacks("rsync")
    (board.bin / "tar").rename(board.bin / "real-tar")
    script(
        board.bin / "tar", f'#!/bin/sh\n{board.bin / "real-tar"} "$@" && : >"$4/model.int8.onnx"\n'
    )
    with pytest.raises(BundleError, match=r"model\.int8\.onnx: FAILED") as caught:
        board.deploy(birds)
    assert caught.value.exit_code == 4
    assert names(caught.value.result)[-1] == "digest"
    assert caught.value.result["rolled_back"]
    assert board.left_over == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "trap '' XFSZ; ulimit -f 1000",
            r"rsync ended with \d+: rsync: .*a\.bin\S+ File too large",
        ),
        ("kill $$", r"rsync ended with \d+: rsync: connection unexpectedly closed"),
    ],
    ids=["the disk is full", "rsync is killed"],
)
def test_a_copy_that_fails_there_leaves_nothing(
    fault: str, message: str, board: LocalBoard, birds: Bundle
) -> None:
    """What came so far must not keep a full disk full; and the board was reached."""
    board.deploy(birds)
    before = board.serving
    (board.bin / "rsync").rename(board.bin / "real-rsync")
    script(board.bin / "rsync", f'#!/bin/sh\n{fault}\nexec real-rsync "$@"\n')
    with pytest.raises(FinedgeError, match=message) as caught:
        board.deploy(with_megabytes(birds))
    assert caught.value.exit_code == 1
    assert names(caught.value.result)[-1] == "copy"
    assert caught.value.result["rolled_back"]
    assert (board.serving, board.left_over) == (before, [])


def test_a_killed_remote_finedge_is_not_a_lost_connection(board: LocalBoard, birds: Bundle) -> None:
    """As a build is on a board without enough memory."""
    (board.bin / "finedge").rename(board.bin / "real-finedge")
    script(
        board.bin / "finedge",
        '#!/bin/sh\n[ "$1" = verify ] && kill -9 $$\nexec real-finedge "$@"\n',
    )
    with pytest.raises(FinedgeError, match=r"verify: .*[Kk]illed") as caught:
        board.deploy(birds)
    assert caught.value.exit_code == 1
    assert caught.value.result["rolled_back"]
    assert board.left_over == []


DEEP = "[" * 500  # it is cut where it is shown


@pytest.mark.parametrize("answer", ["", "not JSON", "[]", "{}", "1e999", DEEP, "{'stages': 1}"])
def test_a_remote_finedge_that_gives_another_answer_is_an_error(
    answer: str, board: LocalBoard, birds: Bundle
) -> None:
    (board.bin / "finedge").rename(board.bin / "real-finedge")
    script(
        board.bin / "finedge",
        f'#!/bin/sh\n[ "$1" = verify ] && {{ echo "{answer}"; exit; }}\n'
        'echo a library says hello\nexec real-finedge "$@"\n',
    )
    with pytest.raises(FinedgeError, match=re.escape(f"verify answered '{answer}'")):
        board.deploy(birds)
    assert board.left_over == []


@pytest.mark.parametrize("side", ["board", "host"])
def test_without_rsync_on_either_side_tar_takes_over(
    side: str, board: LocalBoard, birds: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if side == "board":
        board.lacks("rsync")
    else:
        monkeypatch.setenv("PATH", str(board.local))
    result = board.deploy(birds)
    assert detail(result, "copy").startswith("tar sent")
    assert Bundle.load(board.serving).files == birds.files


def test_after_a_kill_in_mid_copy_the_next_deploy_continues(
    board: LocalBoard, birds: Bundle
) -> None:
    board.deploy(birds)
    before = board.serving
    larger = with_megabytes(birds)
    with in_mid_copy(board, larger) as process:
        os.killpg(process.pid, signal.SIGKILL)
    assert board.serving == before
    assert Bundle.load(before).files == birds.files
    assert board.left_over  # what came so far
    board.deploy(larger)
    assert Bundle.load(board.serving).files == larger.files
    assert board.left_over == []


@pytest.mark.slow
def test_rests_of_an_interrupted_deploy_of_another_bundle_are_removed(
    board: LocalBoard, birds: Bundle
) -> None:
    with in_mid_copy(board, with_megabytes(birds)) as process:
        os.killpg(process.pid, signal.SIGKILL)
    assert board.left_over
    board.deploy(changed(birds, "other"))
    assert board.left_over == []


@pytest.mark.slow
def test_killed_at_random_moments_a_whole_version_serves(board: LocalBoard, birds: Bundle) -> None:
    board.deploy(birds)
    digests = {birds.digest()}
    chance = random.Random(0)
    for turn in range(DEPLOY_KILLS):
        new = birds.extend("note", {"a.bin": turn.to_bytes(8, "little") * 5_000}, {"turn": turn})
        digests.add(new.digest())
        with under_way(board, new) as process, suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, DEPLOY_S))
        assert Bundle.load(board.serving).digest() in digests  # loading checks every digest
    board.deploy(new)
    assert Bundle.load(board.serving).digest() == new.digest()
    assert board.left_over == []


@pytest.mark.slow
def test_a_second_deploy_is_refused_until_the_first_ends_or_is_killed(
    board: LocalBoard, birds: Bundle
) -> None:
    larger = with_megabytes(birds)
    with in_mid_copy(board, larger) as process:
        with pytest.raises(FinedgeError, match="another deploy"):
            board.deploy(larger)
        process.kill()  # it alone: its ssh and rsync live on for a while
        process.wait()
        board.deploy(larger)
        os.killpg(process.pid, signal.SIGKILL)
    # An rsync that is cut off keeps what it has under the file's name: not in what serves.
    wait_until(
        lambda: (
            not any(
                str(board.root).encode() in p.read_bytes()
                for p in Path("/proc").glob("[0-9]*/cmdline")
                if p.exists()
            )
        )
    )
    assert Bundle.load(board.serving).files == larger.files
    assert board.left_over == []


def test_a_service_is_restarted_with_the_new_version(board: LocalBoard, birds: Bundle) -> None:
    result = board.deploy(birds, service="finedge", settle_s=1)
    assert names(result) == [*STEPS[:-1], "restart", "health", "tidy"]
    assert [line.split()[0] for line in board.diary if result["version"] in line][:3] == [
        "restart",
        "show",
        "is-active",
    ]


def test_a_service_that_crashes_gets_the_old_version_back(board: LocalBoard, birds: Bundle) -> None:
    old = board.deploy(birds, service="finedge")["version"]
    before = board.serving
    board.set("good", f"versions/{old}/birds.finedge\n")
    with pytest.raises(FinedgeError, match="finedge is failed") as caught:
        board.deploy(changed(birds, "bad"), service="finedge", settle_s=1)
    assert caught.value.exit_code == 1
    assert names(caught.value.result)[-3:] == ["restart", "health", "rollback"]
    assert caught.value.result["rolled_back"]
    assert (board.serving, board.versions, board.left_over) == (before, [old], [])
    assert board.diary[-1] == f"restart versions/{old}/birds.finedge"


@pytest.mark.slow
def test_a_first_version_that_crashes_is_removed_and_its_service_stopped(
    board: LocalBoard, birds: Bundle
) -> None:
    board.set("good", "none\n")
    with pytest.raises(FinedgeError) as caught:
        board.deploy(birds, service="finedge", settle_s=1)
    assert caught.value.result["rolled_back"]
    assert not (board.root / "current").is_symlink()
    assert board.versions == []
    assert board.diary[-1].split()[0] == "stop"


def test_a_version_of_the_same_name_is_never_removed(tmp_path: Path) -> None:
    """Two deploys of the same bytes within a second."""
    for incoming in (".incoming-a-1", ".incoming-a-2"):
        (tmp_path / incoming / "b.finedge").mkdir(parents=True)
        (tmp_path / incoming / "b.finedge" / "manifest.json").touch()
    (tmp_path / "versions").mkdir()
    command = ["sh", "-c", ACTIVATE, "sh", str(tmp_path)]
    codes = [
        subprocess.run([*command, incoming, "V", "b.finedge", "", "0"], check=False).returncode
        for incoming in (".incoming-a-1", ".incoming-a-2")
    ]
    assert codes == [0, 1]
    assert (tmp_path / "current" / "manifest.json").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["current", "versions"]


def test_a_link_that_cannot_be_set_back_still_leads_to_a_version(
    board: LocalBoard, birds: Bundle
) -> None:
    board.deploy(birds, service="finedge")
    board.set("no-restart")
    (board.bin / "ln").rename(board.bin / "real-ln")  # the disk is full by then
    script(
        board.bin / "ln",
        f"#!/bin/sh\n[ -e '{board.state}/once' ] && {{ echo 'No space left' >&2; exit 1; }}\n"
        f": >'{board.state}/once'\nreal-ln \"$@\"\n",
    )
    with pytest.raises(FinedgeError, match="restart: Job failed") as caught:
        board.deploy(changed(birds, "bad"), service="finedge")
    assert not caught.value.result["rolled_back"]
    assert detail(caught.value.result, "rollback") == "No space left"
    assert Bundle.load(board.serving).provenance["note"] == {"text": "bad"}


def test_a_rollback_that_fails_is_not_called_one(board: LocalBoard, birds: Bundle) -> None:
    board.deploy(birds, service="finedge")
    before = board.serving
    board.set("no-restart")
    with pytest.raises(FinedgeError, match="restart: Job failed") as caught:
        board.deploy(changed(birds, "bad"), service="finedge")
    assert names(caught.value.result)[-1] == "rollback"
    assert not caught.value.result["rolled_back"]
    assert board.serving == before


@pytest.mark.slow
def test_a_board_that_is_cut_off_while_settling_still_rolls_back(
    board: LocalBoard, birds: Bundle
) -> None:
    old = board.deploy(birds, service="finedge")["version"]
    before = board.serving
    with under_way(board, changed(birds, "bad"), "finedge", "20") as process:
        wait_until(lambda: any("is-active" in line and old not in line for line in board.diary))
        os.killpg(process.pid, signal.SIGKILL)
    board.set("good", f"versions/{old}/birds.finedge\n")
    wait_until(lambda: board.serving == before and board.diary[-1].startswith("restart"))
    wait_until(lambda: board.versions == [old])


def test_a_missing_service_is_an_error_before_anything_is_copied(
    board: LocalBoard, birds: Bundle
) -> None:
    board.set("no-unit")
    with pytest.raises(FinedgeError, match="no unit 'finedge'"):
        board.deploy(birds, service="finedge")
    assert not board.root.exists()


def test_a_board_that_does_not_answer_exits_3(board: LocalBoard, birds: Bundle) -> None:
    with pytest.raises(SystemProblem, match="cannot be reached") as caught:
        board.deploy(birds, port=1)
    assert caught.value.exit_code == 3
    assert names(caught.value.result) == ["connect"]


def test_a_key_the_board_does_not_know_exits_3(board: LocalBoard, birds: Bundle) -> None:
    with pytest.raises(SystemProblem, match="Permission denied"):
        board.deploy(birds, identity=board.key.with_name("stranger"))


def test_a_board_whose_host_key_changed_is_refused(board: LocalBoard, birds: Bundle) -> None:
    known_hosts = board.key.with_name("known")
    address = known_hosts.read_text().split()[0]
    known_hosts.write_text(f"{address} {board.key.with_name('stranger.pub').read_text()}")
    with pytest.raises(SystemProblem, match="cannot be reached"):
        board.deploy(birds)


def test_without_ssh_here_it_exits_3(
    board: LocalBoard, birds: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(board.state))
    with pytest.raises(SystemProblem, match="ssh is not installed here"):
        board.deploy(birds)


def test_a_board_without_finedge_exits_3_unless_its_path_is_given(
    board: LocalBoard, birds: Bundle
) -> None:
    elsewhere = (board.bin / "finedge").rename(board.state / "finedge")
    with pytest.raises(SystemProblem, match="has no finedge"):
        board.deploy(birds)
    assert not board.root.exists()
    assert board.deploy(birds, finedge=str(elsewhere))["steps"][-1]["ok"]


def test_any_folder_name_and_a_login_that_prints_text_work(
    board: LocalBoard, birds: Bundle
) -> None:
    name = "it's $HOME; {a} `b`"
    (board.root.parent / ".bashrc").write_text("echo welcome\numask 077\n")
    board.deploy(birds, path=f"~/{name}")
    copy = Bundle.load(board.root.with_name(name) / "current")
    assert copy.files == birds.files
    # A service may run as nobody's account.
    live = copy.path.resolve()
    assert all(
        p.stat().st_mode & 0o044 == 0o044 for p in (live, *live.parents[:3], *live.iterdir())
    )


def test_a_current_that_deploy_did_not_make_is_kept(board: LocalBoard, birds: Bundle) -> None:
    (board.root / "current").mkdir(parents=True)
    with pytest.raises(FinedgeError, match="not a symbolic link"):
        board.deploy(birds)
    assert list((board.root / "current").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("-oProxyCommand=x", {}),
        ("", {}),
        ("a b", {}),
        ("../x", {}),
        ("host/path", {}),
        ("ssh://host", {}),
        ("me@-oProxyCommand=x", {}),
        ("-me@host", {}),
        ("me;id@host", {}),
        ("$(id)@host", {}),
        ("host\n", {}),
        ("host\x00", {}),
        ("ho\x1bst", {}),
        ("host:22", {}),
        ("@host", {}),
        ("b", {"path": "~/a\nb"}),
        ("b", {"finedge": "a\x00"}),
        ("b", {"keep": -1}),
        ("b", {"identity": Path("none")}),
        ("b", {"precision": "int9"}),
        ("b", {"service": "-x"}),
    ],
)
def test_wrong_names_and_options_are_usage_errors(
    name: str, options: dict[str, Any], birds: Bundle
) -> None:
    with pytest.raises(UsageError):
        deploy(name, birds.path, **grouped(options))


BOARDS = ["board", "me@board", "me.x+y@board.local", "DOMAIN_me@b", "10.0.0.1", "me@10.0.0.1"]


@pytest.mark.parametrize(
    "name", [*BOARDS, "::1", "me@fe80::1%eth0", "[::1]", "me@corp@board", "machine$@b"]
)
def test_every_host_name_that_ssh_accepts_is_accepted(name: str) -> None:
    assert SshTarget(name).host == name


@pytest.mark.parametrize(
    "name",
    [
        "../model.onnx",
        "sub/model.onnx",
        "/etc/passwd",
        "-rf",
        ".hidden",
        "a\nb",
        "a b",
        "",
        "x" * 300,
    ],
)
def test_a_manifest_that_names_more_than_plain_files_is_refused(name: str, birds: Bundle) -> None:
    with pytest.raises(BundleError, match="names the file"):
        refuse_unsendable(replace(birds, files={**birds.files, name: "0" * 64}))


def test_a_link_in_a_bundle_is_refused_before_anything_is_sent(birds: Bundle) -> None:
    secret = birds.path.parent / "secret"
    (birds.path / "model.fp32.onnx").rename(secret)
    (birds.path / "model.fp32.onnx").symlink_to(secret)
    with pytest.raises(BundleError, match="link"):
        deploy("board.invalid", birds.path)


def test_only_the_files_of_the_manifest_are_copied(board: LocalBoard, birds: Bundle) -> None:
    for extra in ("report.html", ".hidden", "notes.txt"):
        (birds.path / extra).write_text("mine")
    (birds.path / "engines").mkdir()
    (birds.path / "engines" / "x.engine").write_text("mine")
    board.deploy(birds)
    file_names = {p.name for p in board.serving.iterdir()}
    assert file_names == {"manifest.json", *birds.files}


def test_a_missing_precision_and_a_damaged_bundle_exit_4(birds: Bundle) -> None:
    files = {n: d for n, d in birds.files.items() if n != "model.int8.onnx"}
    Bundle.create(
        birds.path,
        birds.spec,
        files={n: (birds.path / n).read_bytes() for n in files},
        provenance={},
    )
    with pytest.raises(BundleError, match=r"model\.int8\.onnx"):
        deploy("board", birds.path, precision="int8")
    (birds.path / "golden.npz").write_bytes(b"")
    with pytest.raises(BundleError, match="sha256"):
        deploy("board", birds.path)
