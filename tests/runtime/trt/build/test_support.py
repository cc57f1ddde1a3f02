import os
import sys
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from finedge.errors import UsageError
from finedge.runtime.trt.build.support import unsupported
from finedge.runtime.trt.library import MODULES, load_library, numbers, why_not
from finedge.runtime.trt.log import KEPT, collected, logger, reported, without_noise


def model(*nodes, functions=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["b", 3])],
    )
    opsets = [
        helper.make_opsetid("", 20),
        helper.make_opsetid("acme", 1),
        helper.make_opsetid("finedge", 1),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


def test_every_unsupported_node_is_listed_with_its_name(rtx):
    nodes = [
        helper.make_node("MyOp", ["x"], ["y"], "first", domain="acme"),
        helper.make_node("Relu", ["y"], ["r"], "fine"),
        helper.make_node("QLinearConv", ["r"] * 8, ["z"], "third"),
    ]
    refused = unsupported(model(*nodes), library=rtx)
    assert [(u.index, u.name, u.op) for u in refused] == [
        (0, "first", "acme::MyOp"),
        (2, "third", "QLinearConv"),
    ]
    assert (
        refused[0].why == "no importer and no plugin 'MyOp' version '1' in namespaces '' or 'acme'"
    )
    assert refused[1].describe() == (
        "node #2 'third' (QLinearConv): no importer for QLinearConv; "
        "export without this op, or run this bundle with --backend onnxruntime"
    )


def test_our_op_without_its_plugin_says_how_to_do_without(rtx):
    (node,) = unsupported(
        model(
            helper.make_node("ChannelAttention", ["x", "x", "x"], ["z"], "attend", domain="finedge")
        ),
        library=rtx,
    )
    assert node.fix == "build with --attention decomposed, which needs no plugin"


def test_a_type_error_has_no_noise_of_a_missing_driver(rtx):
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "cast", to=TensorProto.FLOAT16),
        helper.make_node("Add", ["x", "h"], ["z"], "sum"),
    ]
    (node,) = unsupported(model(*nodes), library=rtx)
    assert node.name == "sum"
    assert "same input types" in node.why
    assert "cuda" not in node.why.lower()


def test_inside_a_function_the_call_is_named(rtx):
    body = helper.make_function(
        "acme",
        "Wrap",
        ["w__x"],
        ["w__y"],
        [helper.make_node("MyOp", ["w__x"], ["w__y"], "inner", domain="acme")],
        [helper.make_opsetid("acme", 1)],
    )
    (node,) = unsupported(
        model(helper.make_node("Wrap", ["x"], ["z"], "call", domain="acme"), functions=[body]),
        library=rtx,
    )
    assert "inner" in node.name
    assert "call" in node.name


def test_a_supported_model_has_none(rtx):
    assert unsupported(model(helper.make_node("Relu", ["x"], ["z"], "relu")), library=rtx) == ()


def test_the_int8_form_of_other_tools_is_refused_with_a_reason(rtx, tiny_bundle):
    nodes = unsupported(onnx.load(tiny_bundle.file("model.int8.onnx")), library=rtx)
    assert nodes
    assert all("calibrate" in u.fix for u in nodes)


def test_one_logger_serves_all_and_collections_nest(rtx):
    ours = logger(rtx.trt)
    assert logger(rtx.trt) is ours
    with collected(rtx.trt) as outer:
        ours.log(rtx.trt.ILogger.ERROR, "one")
        with collected(rtx.trt, everything=True) as inner:
            ours.log(rtx.trt.ILogger.VERBOSE, "two")
        ours.log(rtx.trt.ILogger.ERROR, "noise in catchCudaError")
    assert [list(texts) for texts in (outer, outer.errors, inner, inner.errors)] == [
        ["one", "noise in catchCudaError"],
        ["one"],
        ["two"],
        [],
    ]


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_million_messages_take_no_memory_and_no_error_is_lost(rtx):
    """They come through the binding, as those of a long build do."""
    severity, ours = rtx.trt.ILogger, logger(rtx.trt)
    with collected(rtx.trt) as messages:
        severity.log(ours, severity.ERROR, "no tactic")
        before = resident_bytes()
        for i in range(1_000_000):
            severity.log(ours, severity.VERBOSE, f"Tactic 0x{i:016x} Time: 0.0123")
        for i in range(2 * KEPT):
            severity.log(ours, severity.INFO, f"step {i}")
    assert resident_bytes() - before < 16 << 20  # all of them are more than 80 MB
    assert messages.errors.popleft() == "no tactic"
    assert list(messages) == [f"step {i}" for i in range(KEPT, 2 * KEPT)]


@pytest.mark.parametrize("everything", [False, True])
def test_verbose_messages_are_kept_only_where_all_are(rtx, everything):
    severity, ours = rtx.trt.ILogger, logger(rtx.trt)
    with collected(rtx.trt, everything=everything) as messages:
        severity.log(ours, severity.INFO, "step")
        severity.log(ours, severity.VERBOSE, "tactic")
    assert list(messages) == ["step", "tactic"][: 1 + everything]


def test_errors_are_bounded_too(rtx):
    with collected(rtx.trt) as messages:
        for i in range(10 * KEPT):
            logger(rtx.trt).log(rtx.trt.ILogger.ERROR, f"error {i}")
    assert messages.errors[-1] == f"error {10 * KEPT - 1}"
    assert len(messages.errors) == len(messages) == KEPT


def test_collections_of_two_threads_may_end_in_any_order(rtx, caplog):
    ours, error = logger(rtx.trt), rtx.trt.ILogger.ERROR
    first, second = collected(rtx.trt), collected(rtx.trt)
    first.__enter__()
    messages = second.__enter__()
    first.__exit__(None, None, None)
    ours.log(error, "of the second")
    second.__exit__(None, None, None)
    ours.log(error, "of nobody")
    assert list(messages) == ["of the second"]
    assert "of nobody" in caplog.text, "it reached the package's log"


def test_errors_of_a_block_that_raises_nothing_reach_the_log(rtx, caplog):
    ours, kinds = logger(rtx.trt), rtx.trt.ILogger
    with reported(rtx.trt) as messages:
        ours.log(kinds.WARNING, "a warning")
        ours.log(kinds.ERROR, "an error")
        assert "a warning" in caplog.text
        assert "an error" not in caplog.text
    assert "an error" in caplog.text
    assert list(messages) == ["an error"]
    with suppress(OSError), reported(rtx.trt):
        ours.log(kinds.ERROR, "quoted by the exception")
        raise OSError
    assert "quoted by" not in caplog.text


def test_noise_is_taken_out_line_by_line():
    assert without_noise("a\n[x::catchCudaError::250] b\nc") == "a\nc"


@pytest.mark.parametrize("backend", MODULES)
def test_a_missing_library_says_what_to_install(backend, monkeypatch):
    monkeypatch.setitem(sys.modules, MODULES[backend][0], None)
    assert "is missing: pip install" in why_not(backend)


def test_an_unknown_builder_is_refused():
    with pytest.raises(UsageError, match="no engine builder 'openvino'"):
        load_library("openvino")


def test_versions_are_compared_as_numbers():
    assert numbers("10.3.0.30") < numbers("10.12.0") < numbers("11.4.1")
    assert numbers("10.16.2.post1") == (10, 16, 2)
