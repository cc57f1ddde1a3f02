"""Every version of the binding has what our code uses, with the parameters that it passes."""

from __future__ import annotations

import json

import pytest

from finedge.runtime.cuda.binding import binding as installed_binding
from tests.runtime.cuda.fakes import FakeCuda
from tests.runtime.trt.cuda_bindings.uses import ROOT, uses

USES = uses()
# The calls that need no driver.
ALWAYS = {"cudaRuntimeGetVersion", "cudaGetErrorName", "cudaGetErrorString"}
INSUFFICIENT_DRIVER, SUCCESS = "status 35", "status 0"


@pytest.fixture(scope="module")
def surface(binding):
    wanted = {
        "calls": sorted(USES.calls),
        "names": sorted(USES.names),
        "facts": sorted(USES.facts),
    }
    return binding.run("surface.py", json.dumps(wanted))


def test_the_source_is_read():
    assert {("cudaMemcpyAsync", 5), ("cudaFree", 1), ("cudaGetDeviceCount", 0)} <= USES.calls
    assert {"cudaMemcpyKind", "cudaMemcpyHostToDevice", "cudaHostAllocMapped"} <= USES.names
    assert {"name", "multiProcessorCount", "integrated"} <= USES.facts
    assert len(USES.functions) > 20
    assert uses(ROOT / "calib").functions == frozenset()


def test_the_binding_is_the_one_that_was_asked_for(binding, surface):
    assert any(surface["file"].startswith(path) for path in binding.path.split(":"))
    assert installed_binding() is None or installed_binding().__file__ != surface["file"]


def test_every_constant_enum_and_fact_is_there(surface):
    assert surface["missing"] == []
    assert surface["facts"] == []
    assert surface["stream"] == 1234


def test_every_call_takes_our_arguments(surface):
    """None raises TypeError: they answer that there is no driver."""
    assert set(surface["answers"]) == USES.functions
    endings = {INSUFFICIENT_DRIVER, SUCCESS, "RuntimeError"}
    assert {n: a for n, a in surface["answers"].items() if a not in endings} == {}


def test_a_version_that_raises_without_a_driver_is_older_than_12_9(binding, surface):
    raises = "RuntimeError" in surface["answers"].values()
    assert raises == binding.name.startswith(("cuda-python==12.6", "cuda-bindings==12.8"))


def test_the_fake_binding_has_every_name_that_our_code_uses():
    fake = FakeCuda()
    places = (fake, fake.cudaMemcpyKind, fake.cudaStreamCaptureMode)
    names = USES.functions | USES.names
    assert {name for name in names if not any(hasattr(p, name) for p in places)} <= {
        "cudaDeviceGetPCIBusId"  # only telemetry calls it
    }
