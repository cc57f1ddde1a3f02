"""Whether an engine computes attention from standard ops or by the plugin."""

from dataclasses import replace

import pytest

from finedge.graph.attention import AttentionNode
from finedge.runtime.cuda.gpu import Gpu
from finedge.runtime.trt.build.attention import AttentionDecision, attention_decisions
from finedge.runtime.trt.build.options import BuildOptions, BuildTarget
from finedge.runtime.trt.build.spec import engine_specs
from finedge.runtime.trt.build.store import EngineStore
from finedge.runtime.trt.choose import stored_engine
from finedge.runtime.trt.library import TrtLibrary

TRT = TrtLibrary("tensorrt", "trt", None, "10.3.0")


def node(d=64, dv=64):
    return AttentionNode("attend", "q", "k", "v", 0.125, queries=16, keys=64, d=d, dv=dv)


@pytest.fixture
def plugin_works(monkeypatch):
    monkeypatch.setattr("finedge.runtime.trt.build.attention.plugin_why_not", lambda *_: None)


def modes(*nodes, precision="fp16", timed):
    options = BuildOptions(precision)
    decisions = attention_decisions(nodes, options, library=TRT, timed=timed)
    return [decision.mode for decision in decisions]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    "nodes",
    [(), (node(),), (node(), node(64, 32)), (node(256, 256),), (node(512, 512),)],
    ids=["none", "square", "uneven", "256", "512"],
)
@pytest.mark.usefixtures("plugin_works")
def test_without_timing_attention_stays_decomposed(nodes, precision):
    assert modes(*nodes, precision=precision, timed=False) == ["decomposed"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.usefixtures("plugin_works")
def test_on_a_gpu_the_plugin_is_tried_for_wide_heads_only(precision):
    narrow = (node(), node(64, 32), node(256, 256))
    assert modes(*narrow, precision=precision, timed=True) == ["decomposed"]
    both = ["decomposed", "plugin"]
    assert modes(*narrow, node(512, 512), precision=precision, timed=True) == both
    assert modes(node(64, 288), precision=precision, timed=True) == both
    assert modes(node(512, 512), precision="fp32", timed=True) == ["decomposed"]


@pytest.mark.usefixtures("plugin_works")
def test_a_plugin_that_is_asked_for_is_taken_for_every_head():
    options = BuildOptions("fp16", "plugin")
    assert attention_decisions((node(),), options, library=TRT, timed=True) == (
        AttentionDecision("plugin", "asked for"),
    )


def test_a_plugin_that_cannot_be_used_is_said_and_left_out(monkeypatch, caplog):
    monkeypatch.setattr("finedge.runtime.trt.build.attention.plugin_why_not", lambda *_: "no link")
    (decision,) = attention_decisions(
        (node(512, 512),), BuildOptions("fp16"), library=TRT, timed=True
    )
    assert decision.mode == "decomposed"
    assert "no link" in decision.reason
    assert "the plugin is not tried: no link" in caplog.text


@pytest.mark.usefixtures("plugin_works")
def test_a_stored_engine_may_have_the_plugin_where_auto_would_not_try_it(attention_bundle):
    """It was asked for when the engine was built, or an earlier version timed it."""
    bundle, asked = attention_bundle(), BuildOptions("fp16", "plugin")
    orin = Gpu("Orin", "8.7", integrated=True, processors=8, memory_mib=7620, driver="12.6")
    target = BuildTarget.of(orin)
    (spec,) = engine_specs(bundle, asked, library=TRT, target=target)
    stored = EngineStore.of(bundle).keep(spec.key, b"an engine", {})
    for attention, path in (("auto", stored.path), ("plugin", stored.path), ("decomposed", None)):
        options = replace(asked, attention=attention)
        engine = stored_engine(bundle, options, library=TRT, gpu=orin)
        assert (engine and engine.path) == path
