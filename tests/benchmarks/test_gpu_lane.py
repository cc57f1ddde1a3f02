"""The tests that `lane` makes on a GPU, on a pretended CUDA and the stand-in driver.

They follow the session's code: what it asks of TensorRT and CUDA has to be in the fake engine.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.gpu import fake_engine
from benchmarks.gpu.parts import lane
from finedge.runtime.trt.plugin.ready_attention import ReadyAttention
from tests.runtime.cuda.fakes import ALIAS, FakeCuda

OUT_OF_MEMORY, UNSUPPORTED = 2, 900
IN_ORDER = (
    lane.answers,
    lane.mapped,
    lane.replays,
    lane.capture_fails,
    lane.out_of_memory,
    lane.lane_out_of_memory,
    lane.opened_and_closed,
    lane.two_lanes,
)


class SmallCuda(FakeCuda):
    """It has no room for more than 1 TiB, and refuses allocations while a stream captures."""

    def cudaMalloc(self, size):  # noqa: N802 - CUDA's names
        if size > 1 << 40:
            return OUT_OF_MEMORY, None
        return (UNSUPPORTED, None) if self.capture else super().cudaMalloc(size)

    def cudaFree(self, pointer):  # noqa: N802
        return super().cudaFree(pointer) if pointer else (0,)

    def cudaMemcpy(self, target, source, size, kind):  # noqa: N802
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(source))
        self.resolve(target, size)[:] = array
        return (0,)


@pytest.fixture
def cuda(standin_libcuda, monkeypatch):
    """A pretended CUDA whose streams also hold the launches of the kernel."""
    api = SmallCuda()
    launch = ReadyAttention.launch

    def queued(self, addresses, *, workspace, stream):
        real = [at - ALIAS if at > ALIAS else at for at in addresses]
        api.enqueue(stream, lambda: launch(self, real, workspace=workspace, stream=0))

    monkeypatch.setattr(ReadyAttention, "launch", queued)
    monkeypatch.setattr(fake_engine, "LIBRARY", str(standin_libcuda))
    for name in ("REPLAYS", "OPENED", "TURNS"):
        monkeypatch.setattr(lane, name, 4)
    monkeypatch.setattr(lane, "WARM", 1)
    for name, size in (("QUERIES", 5), ("KEYS", 9), ("CHANNELS", 64), ("SCALE", 0.125)):
        monkeypatch.setattr(fake_engine, name, size)
    from benchmarks.gpu.device import retain_context
    from finedge.runtime.trt.plugin.driver import Driver

    retain_context(Driver(str(standin_libcuda)))
    return lane.Cuda(api)


@pytest.fixture
def engine(cuda):
    return fake_engine.engine(cuda)


@pytest.mark.parametrize("check", IN_ORDER, ids=lambda check: check.__name__)
def test_what_lane_asks_of_a_gpu_holds_on_the_pretended_one(check, cuda, engine):
    row = check(cuda, engine)
    assert row["pass"], row


def test_a_check_that_raises_is_a_row(cuda, monkeypatch):
    def fail(cuda, engine):
        raise OSError("no stream")

    monkeypatch.setattr(lane, "why_no_gpu", lambda: None)
    monkeypatch.setattr(lane, "gpu", lambda: SimpleNamespace(name="pretended"))
    monkeypatch.setattr(lane, "binding", lambda: cuda.api)
    for check in (*IN_ORDER, lane.other_thread):
        monkeypatch.setattr(lane, check.__name__, fail)
    rows = list(lane.rows(None))
    assert rows[0]["gpu"] == {"name": "pretended"}
    assert [row["pass"] for row in rows[1:]] == [False] * (len(IN_ORDER) + 1)
    assert rows[1]["reason"] == "OSError: no stream"
