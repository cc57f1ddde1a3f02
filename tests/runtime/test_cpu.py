"""What the CPU says of itself."""

from __future__ import annotations

import os

import pytest

from finedge.runtime.cpu import cpu_name, has_exact_int8, owned_cores


@pytest.mark.parametrize(("flags", "exact"), [("fpu avx2 avx512f", False), ("avx2 avx_vnni", True), ("avx512_vnni", True), ("avx512_vnni_like", False)])
def test_vnni_is_read_from_the_flags(tmp_path, flags, exact):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert has_exact_int8(tmp_path / "cpuinfo") is exact
    assert cpu_name(tmp_path / "cpuinfo") == "A CPU"


def test_a_machine_that_shows_no_flags_is_taken_to_lack_vnni_and_still_has_a_name(tmp_path):
    assert has_exact_int8(tmp_path / "missing") is False
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
