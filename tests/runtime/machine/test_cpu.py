"""What the CPU says of itself."""

from __future__ import annotations

import os

import pytest

from finedge.runtime.machine import cpu
from finedge.runtime.machine.cpu import cpu_flags, cpu_name, owned_cores


def write(path, flags):
    path.write_text(f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    return path


def test_another_machine_is_told_by_its_list(tmp_path):
    cpuinfo = write(tmp_path / "cpuinfo", "fpu avx2 avx_vnni avx512_vnni_like")
    assert cpu_flags(cpuinfo) == ["avx2", "avx_vnni"]
    assert cpu_name(cpuinfo) == "A CPU"


@pytest.mark.parametrize(
    ("listed", "asked", "flags"),
    [
        ("avx2 avx_vnni", {"avx2": True, "avx512f": False}, ["avx2", "avx_vnni"]),
        (
            "avx2 avx512f avx_vnni amx_int8",
            {"avx2": True, "avx512f": False},
            ["avx2"],
        ),  # emulated: the list is the host's
        ("asimd asimddp i8mm", {"asimd": True, "asimddp": True}, ["asimd", "asimddp", "i8mm"]),
        ("avx2 avx512f", {"asimd": True, "asimddp": False}, ["asimd"]),  # ARM emulated on x86
        (
            "",
            {"avx2": True, "avx512f": True},
            ["avx2", "avx512f"],
        ),  # Windows and macOS list nothing
        ("avx2 avx_vnni", {}, ["avx2", "avx_vnni"]),  # a NumPy that hides what it found
    ],
    ids=["agree", "emulated", "arm", "emulated arm", "no list", "list only"],
)
def test_this_machine_is_asked_and_its_list_believed_where_the_two_agree(
    tmp_path, monkeypatch, listed, asked, flags
):
    here = write(tmp_path / "cpuinfo", listed)
    monkeypatch.setattr(cpu, "CPUINFO", here)
    monkeypatch.setattr(cpu, "_detected", lambda: asked)
    assert cpu_flags(here) == flags


def test_numpy_is_asked_here():
    assert cpu._detected().keys() & {"avx2", "asimd"}


def test_a_machine_that_lists_nothing_still_has_a_name(tmp_path):
    assert cpu_flags(tmp_path / "missing") == []
    assert cpu_name(tmp_path / "missing")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_owned_cores_follow_the_affinity():
    allowed = os.sched_getaffinity(0)
    assert 1 <= owned_cores() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert owned_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
