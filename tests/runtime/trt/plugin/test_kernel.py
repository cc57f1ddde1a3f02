"""The CUDA kernel on the CPU, against the numpy reference in float64 on the same fp16 numbers."""

import ctypes

import numpy as np
import pytest

from finedge.runtime.trt.plugin.launch import HALF, INT8, SEPARATE, SHARED, AttentionShape
from finedge.runtime.trt.plugin.splits import MAX_SPLITS
from tests.runtime.trt.plugin.attention import (
    FIRST,
    LAST,
    PROBE,
    RANDOM,
    Case,
    answer,
    error,
    launch,
    tensors,
)

# Of the largest value. Weights and result are rounded to fp16, half a step of which is at most
# 4.9e-4 of a number. Seen: 2e-5 to 1e-4 where a query attends to many keys, 2.3e-4 where it attends
# to one.
TOLERANCE = 3e-4
UNKNOWN_KERNEL, PAST_SHARED, TOO_MUCH_SHARED, WRONG_BLOCK = 1, 3, 4, 5  # simt::Failure

SIZES = [Case(49, 196, d, d) for d in (64, 112, 192, 256)]
SLOW = [
    Case(49, 196, 320, 320),
    Case(49, 196, 512, 512),
    Case(49, 196, 512, 512, shared=True),
    Case(49, 196, 1024, 1024, shared=True),
    Case(196, 784, 64, 64),
]
RAGGED = [
    Case(5, 37, 64, 64),
    Case(1, 1, 8, 8),
    Case(16, 32, 64, 64),
    Case(17, 33, 7, 13),
    Case(5, 37, 16, 200),
    Case(5, 37, 200, 16),
    Case(5, 37, 320, 512),
]
SHARED_RAGGED = Case(5, 37, 500, 500, shared=True)


def name(case):
    return "-".join(str(x) for x in (case.queries, case.keys, case.d, case.dv)) + (
        "-shared" if case.shared else ""
    )


@pytest.mark.parametrize(
    "case",
    [*SIZES, *RAGGED, SHARED_RAGGED, *(pytest.param(c, marks=pytest.mark.slow) for c in SLOW)],
    ids=name,
)
def test_it_computes_the_reference(host_kernel, case):
    assert error(host_kernel, case) < TOLERANCE


@pytest.mark.parametrize("order", [FIRST, LAST, RANDOM])
@pytest.mark.parametrize("probe", PROBE)
def test_no_order_of_the_warps_changes_a_bit(host_kernel, probe, order):
    first = answer(host_kernel, PROBE[probe])[0].read()
    host_kernel.order(order, 7)
    np.testing.assert_array_equal(answer(host_kernel, PROBE[probe])[0].read(), first)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("splits", [1, 2, 3, 7, MAX_SPLITS])
def test_splits_add_up_even_where_some_have_no_keys(host_kernel, splits, batch):
    assert error(host_kernel, Case(21, 72, 64, 61, batch=batch, splits=splits)) < TOLERANCE


def test_a_part_is_what_its_keys_alone_give_and_an_empty_one_says_so(host_kernel):
    case = Case(5, 72, 64, 61, splits=7)  # three tiles of keys: one each, then nothing
    _, want, parts = answer(host_kernel, case)
    o, peak, mass = parts[0, ..., :61], parts[0, ..., 61], parts[0, ..., 62]
    assert (peak[3:] == -np.inf).all()
    assert (mass[3:] == 0).all()
    assert (o[3:] == 0).all()
    share = np.exp2(peak[:3] - peak[:3].max(axis=0))
    whole = (share[..., None] * o[:3]).sum(axis=0) / (share * mass[:3]).sum(axis=0)[:, None]
    np.testing.assert_allclose(whole.T, want[0], atol=1e-3)


LAYOUTS = [("HWC8", HALF), ("LINEAR", HALF), ("CHW32", INT8), ("LINEAR", INT8)]


@pytest.mark.parametrize("keys", LAYOUTS, ids=str)
@pytest.mark.parametrize("queries", LAYOUTS, ids=str)
@pytest.mark.parametrize("channels", [40, 61])
def test_maps_may_be_laid_out_and_typed_each_for_itself(host_kernel, queries, keys, channels):
    case = Case(
        21,
        40,
        channels,
        channels,
        batch=2,
        forms=(queries[0], keys[0], keys[0]),
        kinds=(queries[1], keys[1], keys[1]),
    )
    assert error(host_kernel, case) < TOLERANCE


@pytest.mark.parametrize("form", ["HWC8", "LINEAR"])
def test_the_answer_is_laid_out_as_asked_and_padding_becomes_zero(host_kernel, form):
    y, _, _ = answer(host_kernel, Case(21, 40, 64, 61, batch=2, form_out=form))
    assert np.isfinite(y.read()).all()
    outside = np.delete(y.memory, y.index.ravel())
    assert outside.size == (2 * 21 * 3 if form == "HWC8" else 0)
    assert (outside == 0).all()


def test_a_shared_map_gives_what_two_equal_maps_give(host_kernel):
    case = Case(5, 37, 264, 264, shared=True)
    shared = answer(host_kernel, case)[0].read()
    twice = twin(host_kernel, case)
    np.testing.assert_allclose(shared, twice, atol=1e-3)


def twin(host_kernel, case):
    """The same problem through the kernel with two maps."""
    q, k, _, y = tensors(case)
    problem = AttentionShape(
        q.map(),
        k.map(),
        k.map(),
        y.map(),
        None,
        case.queries,
        case.keys,
        case.d,
        case.dv,
        1,
        1,
        case.d**-0.5,
        0,
    )
    launch(host_kernel, SEPARATE[-1], (1, 1, 1), problem=problem)
    return y.read()


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("gain", [1000.0, 8000.0])
def test_huge_logits_do_not_overflow(host_kernel, gain, splits):
    case = Case(49, 72, 64, 64, gain=gain, splits=splits)
    assert np.isfinite(answer(host_kernel, case)[0].read()).all()
    assert error(host_kernel, case) < TOLERANCE


def test_equal_keys_give_the_mean_of_the_values(host_kernel):
    y, want, _ = answer(host_kernel, Case(5, 37, 64, 64, gain=0.0))
    np.testing.assert_allclose(y.read(), want, atol=2e-4)
    np.testing.assert_allclose(np.ptp(y.read(), axis=-1), 0)


@pytest.mark.parametrize("kernel", [*SEPARATE, *SHARED], ids=lambda k: k.name)
def test_a_block_stays_within_its_shared_memory_and_uses_all_of_it(host_kernel, kernel):
    case = Case(32, 37, kernel.size, kernel.size, shared="shared" in kernel.name)
    # The shim watches what lies past the launch's bytes.
    assert error(host_kernel, case) < TOLERANCE
    q, k, v, y = tensors(case)
    numbers = (None, 32, 37, case.d, case.dv, 1, 1, 1.0, 0)
    problem = AttentionShape(q.map(), k.map(), v.map(), y.map(), *numbers)
    block = (kernel.threads, kernel.shared_bytes - 4)
    failure = host_kernel.run(kernel.name.encode(), 1, 1, 1, *block, ctypes.byref(problem))
    assert failure == PAST_SHARED


def test_the_shim_refuses_what_no_gpu_would_run(host_kernel):
    problem = ctypes.byref(AttentionShape())
    assert host_kernel.run(b"cla_65", 1, 1, 1, 128, 0, problem) == UNKNOWN_KERNEL
    assert host_kernel.run(b"cla_64", 1, 1, 1, 256, 0, problem) == WRONG_BLOCK
    assert host_kernel.run(b"cla_64", 1, 1, 1, 128, 10**6, problem) == TOO_MUCH_SHARED
