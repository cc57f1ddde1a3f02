"""Real builds with TensorRT for RTX. Nothing is executed: that needs a GPU."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.errors import BackendMissing, BundleError, FinedgeError, SystemProblem, UsageError
from finedge.runtime.batch_profile import Profile
from finedge.runtime.cuda.gpu import Gpu, gpu
from finedge.runtime.trt.build import builder, compiler, memory
from finedge.runtime.trt.build.attention import plugin_why_not
from finedge.runtime.trt.build.builder import build, engine_for
from finedge.runtime.trt.build.compiler import BuildOrder
from finedge.runtime.trt.build.key import PORTABLE
from finedge.runtime.trt.build.options import (
    FILES,
    BuildOptions,
    BuildTarget,
    build_target,
)
from finedge.runtime.trt.build.progress import Bars
from finedge.runtime.trt.library import TrtLibrary
from finedge.runtime.trt.log import Messages
from tests.runtime.trt.build.conftest import SPEC, Heads

OPTIONS = BuildOptions("fp16", "decomposed", targets=("sm86",))


@pytest.mark.parametrize("precision", FILES)
def test_every_precision_builds_and_its_record_says_what_it_is(rtx, attention_bundle, precision):
    built = build(attention_bundle(), replace(OPTIONS, precision=precision), library=rtx)
    assert built.read() == built.path.read_bytes()
    assert built.record["attention"]["chosen"] == "decomposed"
    assert built.record["summary"]["int8_convolutions"] == (
        3 if precision.startswith("int8") else 0
    )
    assert (
        built.record["summary"]["fused_attention"],
        built.record["summary"]["unfused_softmax"],
    ) == ((1, 0) if precision in ("fp16", "int8") else (0, 1))
    assert built.record["layers"]


def test_the_stored_engine_is_taken_and_not_built_again(rtx, attention_bundle, monkeypatch):
    bundle = attention_bundle()
    built = build(bundle, OPTIONS, library=rtx)
    monkeypatch.setattr(builder, "compile_engine", lambda *_: pytest.fail("built again"))
    assert engine_for(Bundle.load(bundle.path), OPTIONS, library=rtx).path == built.path


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"profile": Profile(1, 2, 2)}, "profile"),
        ({"workspace_mib": 64}, "flags"),
        ({"targets": ("sm89",)}, "gpu"),
        ({"debug_taps": True}, "onnx"),
    ],
)
def test_other_options_build_again_and_the_difference_is_logged(
    rtx, attention_bundle, caplog, changed, field
):
    bundle = attention_bundle()
    first = build(bundle, OPTIONS, library=rtx)
    second = engine_for(bundle, replace(OPTIONS, **changed), library=rtx)
    assert second.path != first.path
    assert f"{first.path.name} does not fit ({field}: " in caplog.text
    assert first.path.is_file()


def test_another_model_is_never_answered_by_the_engine_of_the_old_one(
    rtx, attention_bundle, caplog
):
    bundle = attention_bundle()
    old = build(bundle, replace(OPTIONS, precision="fp32"), library=rtx)
    model = onnx.load(bundle.file(FLOAT_FILE))
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    changed = bundle.extend("export", {FLOAT_FILE: model.SerializeToString()}, {})
    assert (changed.path / "engines" / old.path.name).is_file()
    new = engine_for(changed, replace(OPTIONS, precision="fp32"), library=rtx)
    assert new.path.name != old.path.name
    assert "does not fit (onnx: " in caplog.text


def test_a_damaged_engine_is_built_again(rtx, attention_bundle, caplog):
    bundle = attention_bundle()
    built = build(bundle, OPTIONS, library=rtx)
    built.path.write_bytes(b"damaged")
    with pytest.raises(BundleError, match="sha256"):
        built.read()
    assert len(engine_for(bundle, OPTIONS, library=rtx).read()) > 1000
    assert "built again" in caplog.text


def test_a_fixed_batch_needs_no_profile_and_takes_no_other(rtx, attention_bundle):
    bundle = attention_bundle(batch=4)
    assert build(
        bundle, replace(OPTIONS, precision="fp32", profile=Profile(4, 4, 4)), library=rtx
    ).read()
    with pytest.raises(UsageError, match="fixed batch 4"):
        build(bundle, replace(OPTIONS, precision="fp32"), library=rtx)


def test_an_input_of_another_name_is_refused(rtx, attention_bundle):
    bundle = attention_bundle()
    renamed = Bundle.create(
        bundle.path,
        replace(SPEC, input=replace(SPEC.input, name="pictures")),
        files={FLOAT_FILE: bundle.file(FLOAT_FILE).read_bytes()},
        provenance={},
    )
    with pytest.raises(BundleError, match="inputs are frames"):
        build(renamed, replace(OPTIONS, precision="fp32"), library=rtx)


def test_what_the_parser_refuses_is_listed_and_nothing_is_written(rtx, tiny_bundle):
    with pytest.raises(
        FinedgeError, match=r"cannot take model\.int8\.onnx:\n    node #0 'bias_DequantizeLinear'"
    ):
        build(tiny_bundle, replace(OPTIONS, precision="int8-fp32"), library=rtx)
    assert not (tiny_bundle.path / "engines").exists()


def test_unknown_targets_are_refused_with_those_that_exist(rtx):
    with pytest.raises(UsageError, match=r"no target 'sm87'\n.*sm80, sm86"):
        build_target(("sm86", "sm87"), library=rtx)


def test_tensorrt_builds_for_no_other_gpu():
    trt = TrtLibrary("tensorrt", "trt", object(), "10.3.0")
    with pytest.raises(UsageError, match="builds for the GPU it runs on"):
        build_target(("sm86",), library=trt)


@pytest.mark.skipif(gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_rtx_builds_a_portable_engine_and_tensorrt_none(rtx, attention_bundle):
    built = build(attention_bundle(), replace(OPTIONS, targets=("local",)), library=rtx)
    assert (built.key.gpu, built.key.compute_capability) == (PORTABLE, PORTABLE)
    assert built.path.name.startswith("portable-rtx1.")
    with pytest.raises(BackendMissing, match="builds on the GPU it is for"):
        build_target(("local",), library=TrtLibrary("tensorrt", "trt", object(), "10.3.0"))


def test_weak_typing_is_for_old_tensorrt_only(rtx, attention_bundle):
    with pytest.raises(UsageError, match="--typing weak"):
        build(attention_bundle(), replace(OPTIONS, typing="weak"), library=rtx)
    assert [
        TrtLibrary("tensorrt", "trt", None, v).may_type_weakly
        for v in ("10.3.0", "10.11.1", "10.12.0", "11.1.0")
    ] == [True, True, False, False]


def test_a_strong_build_that_fails_is_tried_weak_on_old_tensorrt(
    rtx, attention_bundle, monkeypatch
):
    real = builder.compile_engine

    def strong_fails(model, order):
        if order.options.typing == "strong":
            raise FinedgeError("no tactic")
        strong = replace(order, options=replace(order.options, typing="strong"))
        return replace(real(model, strong), typing=order.options.typing)

    monkeypatch.setattr(builder, "compile_engine", strong_fails)
    monkeypatch.setattr(TrtLibrary, "may_type_weakly", property(lambda _: True))
    bundle = attention_bundle()
    built = build(bundle, OPTIONS, library=rtx)
    assert "typing=weak" in built.key.flags
    assert engine_for(bundle, OPTIONS, library=rtx).path == built.path


class FakeConfig:
    """The timing cache of TensorRT's config: TensorRT for RTX has none."""

    def __init__(self, *, accepts=True):
        self.cache, self.accepts = None, accepts

    def create_timing_cache(self, known):
        return known

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self.cache = cache
        return self.accepts or not cache


@pytest.mark.parametrize("accepts", [True, False])
def test_timings_are_kept_by_machine_and_those_of_another_are_dropped(tmp_path, accepts, caplog):
    trt = TrtLibrary("tensorrt", "trt", None, "10.3.0")
    order = BuildOrder(
        "birds", ("frames",), OPTIONS, trt, BuildTarget("Orin", "8.7"), "orin-trt10.3.0"
    )
    path = compiler.use_timing_cache(FakeConfig(), order)
    assert path == tmp_path / "cache" / "timing" / "orin-trt10.3.0.cache"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"timings")
    config = FakeConfig(accepts=accepts)
    compiler.use_timing_cache(config, order)
    assert config.cache == (b"timings" if accepts else b"")
    assert ("timed again" in caplog.text) is not accepts


class NoFile(FakeConfig):
    def get_timing_cache(self):
        return self

    def serialize(self):
        return b"timings"


def test_an_engine_is_kept_when_its_timings_are_not(tmp_path, caplog):
    """The folder of the cache is a file: it can be neither read nor written."""
    (tmp_path / "cache").touch()
    trt = TrtLibrary("tensorrt", "trt", None, "10.3.0")
    target = BuildTarget("Orin", "8.7")
    order = BuildOrder("birds", ("frames",), OPTIONS, trt, target, "orin-trt10.3.0")
    config = NoFile()
    path = compiler.use_timing_cache(config, order)
    assert config.cache == b""
    compiler.keep_timings(config, path)
    assert "cannot be written" in caplog.text


def test_timings_that_cannot_be_read_are_taken_again(tmp_path, monkeypatch, caplog):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    trt = TrtLibrary("tensorrt", "trt", None, "10.3.0")
    target = BuildTarget("Orin", "8.7")
    order = BuildOrder("birds", ("frames",), OPTIONS, trt, target, "orin-trt10.3.0")
    path = compiler.use_timing_cache(FakeConfig(), order)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"timings")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    config = FakeConfig()
    compiler.use_timing_cache(config, order)
    assert config.cache == b""
    assert "cannot be read (Permission denied)" in caplog.text


def test_what_the_binding_raises_is_the_error_of_the_build(rtx, attention_bundle, monkeypatch):
    """The binding raises TypeError for a number that is no int64."""
    monkeypatch.setattr(compiler, "MIB", 1 << 70)
    with pytest.raises(FinedgeError, match=r"cannot build .*TypeError: set_memory_pool_limit"):
        build(attention_bundle(), OPTIONS, library=rtx)


class UnreadableRuntime:
    def deserialize_cuda_engine(self, data):
        raise RuntimeError("Could not deserialise")


def test_an_engine_that_the_binding_cannot_read_back_has_no_layers(rtx, monkeypatch, caplog):
    monkeypatch.setattr(builder, "create", lambda *_, **__: UnreadableRuntime())
    engine = compiler.CompiledEngine(b"engine", 1.0, Messages(), "strong")
    device = Gpu("Orin", "8.7", True, 8, 7620, "12.6")
    report = builder._layers(engine, library=rtx, target=BuildTarget.of(device))
    assert not report.layers
    assert "cannot read the engine's layers: RuntimeError: Could not deser" in caplog.text


def test_an_engine_is_kept_when_its_layers_cannot_be_read(
    rtx, attention_bundle, monkeypatch, caplog
):
    def unread(_):
        raise FinedgeError("a layer line that is not understood")

    monkeypatch.setattr("finedge.runtime.trt.build.read_layers.from_log", unread)
    built = build(attention_bundle(), OPTIONS, library=rtx)
    assert built.read()
    assert built.record["layers"] == []
    assert "no layer report: a layer line that is not understood" in caplog.text


def test_a_user_without_a_home_is_refused_before_the_build(rtx, attention_bundle, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FINEDGE_CACHE")
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(builder, "compile_engine", lambda *_: pytest.fail("built"))
    with pytest.raises(SystemProblem, match="no home folder"):
        build(attention_bundle(), OPTIONS, library=rtx)


@pytest.mark.skipif(gpu() is not None, reason="there is a driver")
def test_a_build_that_the_driver_ends_names_the_driver(rtx, attention_bundle, monkeypatch):
    """CUDA's binding sees a GPU, and TensorRT for RTX gets error 35 (its own text)."""
    device = Gpu("NVIDIA L4", "8.9", False, 58, 23034, "13.0")
    monkeypatch.setattr("finedge.runtime.trt.build.options.gpu", lambda: device)
    with pytest.raises(SystemProblem, match="driver version is insufficient") as caught:
        build(attention_bundle(), BuildOptions("fp16", "decomposed"), library=rtx)
    assert "an NVIDIA driver for" in caught.value.expected
    assert "install an NVIDIA driver" in caught.value.fix


# --- memory and interruption ---


def test_a_hopeless_build_is_refused_and_a_tight_one_warned_of(
    attention_bundle, rtx, monkeypatch, caplog
):
    monkeypatch.setattr(memory, "memory_mib", lambda: {"total": 100_000, "available": 10})
    assert build(attention_bundle(), OPTIONS, library=rtx)
    assert "10 MiB are free" in caplog.text
    monkeypatch.setattr(memory, "memory_mib", lambda: {"total": 100, "available": 10})
    with pytest.raises(SystemProblem, match="needs about") as caught:
        build(attention_bundle(), OPTIONS, library=rtx)
    assert caught.value.exit_code == 3


def test_a_jetson_needs_host_and_device_memory_from_one_pool(monkeypatch):
    need = memory.MemoryEstimate(
        weights_mib=100, activations_mib=50, host_mib=600, device_mib=250, unknown=0
    )
    monkeypatch.setattr(memory, "memory_mib", lambda: {"total": 700, "available": 700})
    memory.check_memory(
        need,
        gpu=Gpu("desktop", "8.9", integrated=False, processors=46, memory_mib=8192, driver="12.6"),
    )
    with pytest.raises(SystemProblem, match="850 MiB"):
        memory.check_memory(
            need,
            gpu=Gpu("Orin", "8.7", integrated=True, processors=8, memory_mib=700, driver="12.6"),
        )


def test_ctrl_c_ends_a_build_and_the_old_engine_stays(rtx, attention_bundle, monkeypatch):
    bundle = attention_bundle()
    old = build(bundle, OPTIONS, library=rtx)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in old.path.parent.iterdir())
    monkeypatch.setattr(Bars, "start", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(
        signal, "SIG_DFL", signal.SIG_IGN
    )  # each phase sends one; the second would end this process
    with pytest.raises(KeyboardInterrupt):
        build(bundle, OPTIONS, library=rtx)
    assert signal.getsignal(signal.SIGINT) is handler
    assert sorted((p.name, p.stat().st_mtime_ns) for p in old.path.parent.iterdir()) == before


def test_the_main_thread_is_free_for_ctrl_c_while_the_library_builds(
    rtx, attention_bundle, monkeypatch
):
    threads = set()
    monkeypatch.setattr(Bars, "start", lambda *_, **__: threads.add(threading.current_thread()))
    build(attention_bundle(), OPTIONS, library=rtx)
    assert threads
    assert threading.main_thread() not in threads


# --- the plugin: in a new process, which TensorRT for RTX ends where its library is not linked ---


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize(
    "heads", [Heads(), Heads(512, 512, shared=True)], ids=["separate", "shared"]
)
def test_the_plugin_is_built_into_the_engine(rtx_environment, attention_bundle, precision, heads):
    bundle = attention_bundle(heads)
    code = f"""
from pathlib import Path
from finedge.bundle import Bundle
from finedge.runtime.trt.build.builder import engine_for
from finedge.runtime.trt.library import load_library
from finedge.runtime.batch_profile import Profile
from finedge.runtime.trt.build.options import BuildOptions
bundle = Bundle.load(Path({str(bundle.path)!r}))
options = BuildOptions({precision!r}, "plugin", targets=("sm86",))
built = engine_for(bundle, options, library=load_library("tensorrt-rtx"))
summary = built.record["summary"]
print(built.key.plugin, summary["plugin_layers"], summary["unfused_softmax"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=rtx_environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    digest, plugins, softmaxes = done.stdout.split()
    assert (len(digest), plugins, softmaxes) == (64, "1", "0")


def test_without_the_link_the_plugin_is_refused(rtx, attention_bundle):
    if plugin_why_not((), rtx) is None:
        pytest.skip("the library is linked in this process")
    with pytest.raises(BackendMissing, match=r"ln -s .*libtensorrt_rtx\.so"):
        build(attention_bundle(), replace(OPTIONS, attention="plugin"), library=rtx)


def test_auto_without_a_gpu_to_time_on_is_decomposed(rtx, attention_bundle):
    """Whether or not the plugin could be built here."""
    options = replace(OPTIONS, attention="auto", precision="int8")
    attention = build(attention_bundle(Heads(512, 512)), options, library=rtx).record["attention"]
    assert attention["chosen"] == "decomposed"
    assert attention["considered"] == ["decomposed"]
    assert "no GPU to time the plugin on" in attention["why"]


def test_the_shipped_bundle_builds_in_int8_with_fused_attention(rtx, tmp_path):
    shipped = Path(__file__).resolve().parents[4] / "examples" / "birds.finedge"
    if not shipped.is_dir():
        pytest.skip("the example bundle is not here")
    bundle = Bundle.load(shipped)
    copy = Bundle.create(
        tmp_path / "birds.finedge",
        bundle.spec,
        files={n: bundle.file(n) for n in bundle.files},
        taps=bundle.taps,
        provenance={},
    )
    summary = build(copy, replace(OPTIONS, precision="int8"), library=rtx).record["summary"]
    assert summary["fused_attention"] == 2
    assert set(summary["precisions"]["convolution"]) == {"int8"}
    assert {island["precision"] for island in summary["float_islands"]} == {"fp16"}
