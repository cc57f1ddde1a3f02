"""What the suite over the real bindings stands on: the table of slots, and how a crash shows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.runtime.trt.bindings.conftest import Run, environment
from tests.runtime.trt.bindings.interfaces import SPARE, header, interfaces
from tests.runtime.trt.bindings.mock_library import WHEELS
from tests.runtime.trt.bindings.test_bindings import DEFAULT


def slots(name, version):
    (interface,) = [known for known in interfaces(version) if known.name == name]
    return interface.slots


def test_a_table_is_read_for_its_version():
    assert slots("IPluginRegistry", "10.7.0")[:4] == (
        "registerCreator",
        "getPluginCreatorList",
        "getPluginCreator",
        "~",
    )
    assert slots("IPluginRegistry", "11.0.0.114")[0] == "~"
    # 10.10 is after 10.3
    assert "getAllCreatorsRecursive" not in slots("IPluginRegistry", "10.3.0")
    assert slots("IPluginRegistry", "10.16.1.11")[-1] == "getAllCreatorsRecursive"
    assert slots("ILogger", "10.3.0") == ("void log(int severity, Text text)", "~")
    assert slots("ILogger", "11.4.0.106")[-1] == "void log(int severity, Text text)"


@pytest.mark.parametrize("version", WHEELS)
def test_every_slot_of_the_header_is_there(version):
    methods = header(version).count("virtual ")
    known = interfaces(version)
    assert methods == sum(len(interface.slots) + SPARE for interface in known)


CALL = "import tensorrt as t; t.Builder(t.Logger()).reset()"


@pytest.mark.parametrize("version", DEFAULT)
def test_a_call_that_the_mock_lacks_ends_the_process_with_its_name(bindings, version, tmp_path):
    variables = environment(bindings(version), standin="", place=tmp_path)
    command = [sys.executable, "-c", CALL]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode < 0
    assert "does not implement VBuilder::reset" in done.stderr


def row(part, outcome="passed"):
    return {"part": part, "test": "test", "outcome": outcome, "text": "why"}


def test_failures_are_told_of_their_part_only():
    run = Run([row("a"), row("b", "failed"), row("c", "skipped")], 1, "output")
    assert [run.failures(part) for part in "abc"] == ["", "test: failed\nwhy", ""]


def test_a_part_that_never_ran_has_failed():
    assert Run([row("a")], 0, "output").failures("b") == "no test ran: output"


def test_a_crash_fails_the_part_that_it_ended_and_those_after_it():
    run = Run([row("a"), row("b")], -6, "output")
    assert run.failures("a") == ""
    for part in ("b", "c"):
        assert run.failures(part) == "the process ended with -6: output"
