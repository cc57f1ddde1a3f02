"""Both modes of attention are built and timed; one that fails is left out.

The builder and the failures of the build are real (TensorRT for RTX); timing needs a GPU, so the
milliseconds are made up.
"""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from finedge.errors import FinedgeError, SystemProblem
from finedge.graph.onnx_file import read_model
from finedge.runtime.trt.build import builder, command
from finedge.runtime.trt.build.builder import build, engine_for
from finedge.runtime.trt.build.graph import prepare
from finedge.runtime.trt.build.options import BuildOptions, build_target
from finedge.runtime.trt.build.show import show
from finedge.runtime.trt.build.store import EngineStore

OPTIONS = BuildOptions("fp16", "auto", targets=("sm86",))


@pytest.fixture
def candidates(rtx, monkeypatch):
    """Make a bundle's decomposed and plugin specs: `candidates(bundle)` returns both.

    The plugin is not registered. Where `works`, its spec has the decomposed graph, so that it can
    be built; else it has its own graph, which the parser refuses.
    """
    decomposed = replace(OPTIONS, attention="decomposed")
    target = build_target(OPTIONS.targets, library=rtx)
    engine_specs = builder.engine_specs

    def make(bundle, *, works):
        (spec,) = engine_specs(bundle, decomposed, library=rtx, target=target)
        asked = replace(OPTIONS, attention="plugin")
        model = spec.model if works else prepare(read_model(bundle.file(asked.file)), asked)
        attention = replace(spec.attention, mode="plugin")
        plugin = replace(
            spec, attention=attention, model=model, key=replace(spec.key, plugin="p" * 64)
        )
        monkeypatch.setattr(builder, "engine_specs", lambda *_, **__: (spec, plugin))
        monkeypatch.setattr(builder, "register_plugin", lambda *_: None)
        return spec, plugin

    return make


def test_where_both_can_be_timed_the_faster_is_kept_and_found_again(
    rtx, attention_bundle, candidates
):
    bundle, engines = attention_bundle(), []
    candidates(bundle, works=True)

    def timer(data, *_, **__):
        engines.append(data)
        return 3.0 - len(engines)

    built = build(bundle, OPTIONS, library=rtx, timer=timer)
    assert built.read() == engines[1]
    attention = built.record["attention"]
    assert attention["considered"] == ["decomposed", "plugin"]
    assert attention["ms"] == {"decomposed": 2.0, "plugin": 1.0}
    assert attention["failed"] == {}
    assert engine_for(bundle, OPTIONS, library=rtx, timer=timer).path == built.path
    assert len(engines) == 2
    assert len(list(EngineStore.of(bundle))) == 1


def test_a_candidate_that_cannot_be_built_is_named_with_its_error(
    rtx, attention_bundle, candidates, caplog
):
    bundle = attention_bundle()
    candidates(bundle, works=False)
    built = build(bundle, OPTIONS, library=rtx, timer=lambda *_, **__: pytest.fail("one is left"))
    attention = built.record["attention"]
    assert attention["chosen"] == "decomposed"
    assert attention["why"] == "plugin failed"
    assert attention["ms"] == {}
    assert "no importer and no plugin 'CrossLayerAttention'" in attention["failed"]["plugin"]
    assert "plugin failed and is left out of the choice: tensorrt-rtx" in caplog.text
    assert json.loads(built.path.with_suffix(".json").read_text())["attention"] == attention


def test_a_candidate_that_cannot_be_run_is_named_with_its_error(
    rtx, attention_bundle, candidates, caplog
):
    bundle, timed = attention_bundle(), []
    candidates(bundle, works=True)

    def timer(data, *_, **__):
        timed.append(data)
        if len(timed) == 2:
            raise SystemProblem("cuLaunchKernel failed with 701", fix="less shared memory")
        return 1.0

    attention = build(bundle, OPTIONS, library=rtx, timer=timer).record["attention"]
    assert attention["chosen"] == "decomposed"
    assert attention["ms"] == {"decomposed": 1.0}
    assert attention["failed"]["plugin"].startswith("cuLaunchKernel failed with 701")
    assert "left out of the choice: cuLaunchKernel failed with 701" in caplog.text


def test_where_both_fail_the_first_error_ends_the_build(rtx, attention_bundle, candidates):
    bundle = attention_bundle()
    candidates(bundle, works=True)

    def timer(*_, **__):
        raise SystemProblem("the GPU is gone")

    with pytest.raises(FinedgeError, match="the GPU is gone"):
        build(bundle, OPTIONS, library=rtx, timer=timer)
    assert not list(EngineStore.of(bundle))


def test_the_user_sees_which_candidate_failed(rtx, attention_bundle, candidates):
    bundle = attention_bundle()
    candidates(bundle, works=False)
    result = command.build(bundle.path, target="sm86", backend="tensorrt-rtx")
    failed = result["precisions"]["fp16"]["attention"]["failed"]
    assert "no plugin 'CrossLayerAttention'" in failed["plugin"]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(show(result))
    assert "plugin failed" in capture.get()
    assert "no plugin 'CrossLayerAttention'" in capture.get()
