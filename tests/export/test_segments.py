import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from finedge.early_exit import segment_file
from finedge.errors import GateError, UsageError
from finedge.export.segments import check_cut, choose_exits, cut_files
from finedge.spec import Output
from tests.runtime.conftest import SIZE, SPEC
from tests.runtime.early_exit.conftest import HEAD, TWO_HEADS, two_heads

FILE = "model.fp32.onnx"
FIRST_CONV = 8 * 3 * 9 * SIZE * SIZE  # multiply-accumulates
SECOND_CONV = 8 * 8 * 9 * SIZE * SIZE


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 255, (2, SIZE, SIZE, 3), np.uint8)


def test_the_exits_are_the_local_heads_and_their_cost_is_counted():
    plan = choose_exits(two_heads(), TWO_HEADS)
    (head,) = plan.exits
    assert head.output == HEAD
    assert head.macs == FIRST_CONV + 6 * 8
    assert plan.macs == FIRST_CONV + SECOND_CONV + 2 * 6 * 8


def test_files_are_cut_and_compute_the_same(frames):
    plan = choose_exits(two_heads(), TWO_HEADS)
    cuts = cut_files({FILE: two_heads()}, plan, frames)
    assert set(cuts.files) == {segment_file(FILE, k) for k in range(plan.count)}
    assert cuts.to_json()["differences"] == {FILE: pytest.approx(0, abs=1e-4)}


def test_segments_that_compute_something_else_are_refused(frames):
    plan = choose_exits(two_heads(), TWO_HEADS)
    first, rest = cut_files({FILE: two_heads()}, plan, frames).files.values()
    changed = onnx.load_from_string(rest)
    bias = next(t for t in changed.graph.initializer if t.name == "bias2")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.ones(6, np.float32), bias.name))
    parts = (first, changed.SerializeToString())
    with pytest.raises(GateError, match=r"the segments of model\.fp32\.onnx differ"):
        check_cut(two_heads(), parts, frames, name=FILE, limit=1e-4)


def with_late_head():
    """Return the model and its spec with a local head that reads the last map."""
    model = two_heads()
    own = helper.make_tensor_value_info("own", TensorProto.FLOAT, ["batch", 6])
    model.graph.output.append(own)
    outputs = (*TWO_HEADS.outputs, Output("own", role="local"))
    return model, type(SPEC)("late", "none", SPEC.labels, SPEC.preprocess, SPEC.input, outputs)


def test_a_head_that_reads_the_last_map_is_no_exit():
    model, spec = with_late_head()
    assert [one.output for one in choose_exits(model, spec).exits] == [HEAD]
    with pytest.raises(UsageError, match=r"an exit at own of late skips 0\.0%"):
        choose_exits(model, spec, names="own")


def test_an_unknown_exit_and_a_model_without_heads_are_refused():
    with pytest.raises(UsageError, match="unknown exit 'local_9'"):
        choose_exits(two_heads(), TWO_HEADS, names="local_9")
    with pytest.raises(UsageError, match="tiny has no local head"):
        choose_exits(two_heads(), SPEC)
