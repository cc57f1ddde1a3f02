"""Opening a bundle on a device: which engine is used, when one is built, and the golden frame."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from finedge.cli import main
from finedge.errors import BackendMissing, BundleError, GateError, SystemProblem
from finedge.runtime.backend import NoTaps, load_backend
from finedge.runtime.backend import why_not as why_not_backend
from finedge.runtime.batch_profile import Profile
from finedge.runtime.cuda.gpu import Gpu, gpu, why_no_gpu
from finedge.runtime.trt import input_memory
from finedge.runtime.trt.backend import RtxBackend, TensorRtBackend, why_not_gpu
from finedge.runtime.trt.build.key import EngineKey
from finedge.runtime.trt.build.options import BuildOptions
from finedge.runtime.trt.build.store import EngineStore, StoredEngine
from finedge.runtime.trt.choose import runs_on
from finedge.runtime.trt.engine import Engine
from finedge.runtime.trt.library import (
    MODULES,
    TrtLibrary,
    cuda_major,
    driver_fix,
    load_library,
    why_not,
    why_not_driver,
)
from finedge.runtime.verify.command import verify
from tests.runtime.benchmark.conftest import run_benchmark
from tests.runtime.cuda.fakes import FakeCuda
from tests.runtime.trt.fakes import FakeContext, FakeEngine

ORIN = Gpu("Orin", "8.7", integrated=True, processors=8, memory_mib=8192, driver="12.6")
KEY = EngineKey("o", "", "tensorrt", "10.3.0", "Orin", "8.7", "fp16", (1, 1, 8), ())
GOLDEN = "golden"


def record_of(bundle):
    return next(iter(EngineStore.of(bundle))).record


def replays(device):
    """Return how many golden frames were run since the last question."""
    count = device.cuda.names().count("cudaGraphLaunch")
    device.cuda.calls.clear()
    return count


# --- which engine ---


def test_the_first_open_builds_and_says_what_runs(device, tiny_bundle):
    with closing(TensorRtBackend().open(tiny_bundle, variant="fp32")) as session:
        info = session.info
    assert [o.precision for o in device.built] == ["fp32"]
    assert (info.backend, info.device, info.precision, info.source) == (
        "tensorrt",
        "Pretended",
        "fp32",
        "model.fp32.onnx",
    )
    assert info.file.startswith("pretended-8sm-8gib-trt10.3.0-fp32-")
    assert info.versions == {"tensorrt": "10.3.0", "driver": "12.6"}
    assert device.cuda.live() == []


def test_the_second_open_takes_the_engine_that_is_there(device, tiny_bundle):
    for _ in range(2):
        TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert len(device.built) == 1


def test_an_engine_the_user_built_with_another_batch_is_taken(device, tiny_bundle):
    device.build(
        tiny_bundle,
        BuildOptions("fp32", "decomposed", Profile(1, 4, 16), 256),
        library=device.library,
    )
    with closing(TensorRtBackend().open(tiny_bundle, variant="fp32")) as session:
        assert session.info.precision == "fp32"
    assert len(device.built) == 1


def test_an_engine_for_another_gpu_is_left_alone(device, tiny_bundle):
    built = device.build(tiny_bundle, BuildOptions("fp32"), library=device.library)
    EngineStore.of(tiny_bundle).keep(replace(built.key, gpu="Orin"), b"fp32", {})
    built.path.unlink()
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert len(device.built) == 2


def test_an_engine_of_another_board_of_the_same_name_is_left_alone(device, tiny_bundle, caplog):
    """A bundle was built on a board with 16 multiprocessors and copied to one with 8."""
    device.cuda.properties.multiProcessorCount = 16
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    device.cuda.properties.multiProcessorCount = 8
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert len(device.built) == 2
    assert "(gpu: Pretended (16SM, 8GiB) -> Pretended (8SM, 8GiB)): building again" in caplog.text


def test_an_engine_whose_key_knows_no_board_is_built_again(device, tiny_bundle, caplog):
    """An earlier version wrote it: nothing fails, and the log says why it is not used."""
    built = device.build(tiny_bundle, BuildOptions("fp32"), library=device.library)
    old = replace(built.key, gpu="Pretended")
    EngineStore.of(tiny_bundle).keep(old, b"fp32", {"attention": built.record["attention"]})
    for path in (built.path, built.path.with_suffix(".json")):
        path.unlink()
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert len(device.built) == 2
    assert "does not fit (gpu: Pretended -> Pretended (8SM, 8GiB)): building again" in caplog.text


def test_a_damaged_engine_is_built_again(device, tiny_bundle, caplog):
    built = device.build(tiny_bundle, BuildOptions("fp32"), library=device.library)
    built.path.write_bytes(b"damaged")
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert len(device.built) == 2
    assert "sha256" in caplog.text


def test_int8_is_built_from_the_portable_file(device, tiny_bundle):
    with closing(TensorRtBackend().open(tiny_bundle, variant="int8")) as session:
        assert session.info.source == "model.int8.onnx"


def test_a_bundle_with_the_cpu_form_only_has_no_int8_for_a_gpu(device, make_bundle):
    bundle = make_bundle(files=("model.fp32.onnx", "model.int8.cpu.onnx"))
    with pytest.raises(BundleError, match="finedge calibrate"):
        TensorRtBackend().open(bundle, variant="int8")


@pytest.mark.parametrize(
    ("gpu_of_key", "capability", "fits"),
    [
        ("Orin (8SM, 8GiB)", "8.7", True),
        ("Orin (8SM, 16GiB)", "8.7", False),  # Orin NX
        ("Orin (16SM, 64GiB)", "8.7", False),  # AGX Orin
        ("Orin", "8.7", False),  # any of them: written by an earlier version
        ("Orin (8SM, 8GiB)", "8.6", False),
        ("portable", "portable", False),  # 8.7 is not among what it covers
        ("sm87", "sm87", True),
        ("sm86+sm87", "sm86+sm87", True),
        ("sm86+sm89", "sm86+sm89", False),
    ],
)
def test_engines_run_on_the_gpu_they_were_built_for(gpu_of_key, capability, fits):
    assert runs_on(replace(KEY, gpu=gpu_of_key, compute_capability=capability), ORIN) is fits


def test_a_portable_engine_runs_on_what_it_covers():
    assert runs_on(
        replace(KEY, gpu="portable", compute_capability="portable"),
        replace(ORIN, compute_capability="8.9"),
    )


def test_the_plugin_is_registered_before_its_engine_is_loaded(device, tiny_bundle, monkeypatch):
    plugin = pytest.importorskip("finedge.runtime.trt.plugin.register")
    order = []
    monkeypatch.setattr(plugin, "register", lambda trt: order.append("register"))
    monkeypatch.setattr(Engine, "load", classmethod(lambda cls, data, **_: order.append("load")))
    engine = EngineStore.of(tiny_bundle).keep(replace(KEY, plugin="digest"), b"engine", {})
    with pytest.raises(AttributeError):
        TensorRtBackend().open_engine(tiny_bundle, engine)
    assert order == ["register", "load"]


# --- the golden frame ---


@pytest.fixture
def discrete(device):
    """A device whose GPU has its own memory: it times nothing when an engine is opened."""
    device.cuda.properties.integrated = 0
    return device


def test_the_golden_frame_is_replayed_once_on_a_device(discrete, tiny_bundle):
    device = discrete
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert replays(device) == 1
    result = record_of(tiny_bundle)[GOLDEN]
    assert (result["pass"], result["device"], result["driver"]) == (
        True,
        "Pretended (8SM)",
        "12.6",
    )
    assert [s["name"].split("/")[1] for s in result["stages"]] == ["logits"]
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert replays(device) == 0


def test_a_record_that_cannot_be_written_is_no_reason_not_to_open(
    device, tiny_bundle, monkeypatch, caplog
):
    def full(engine, name, value):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("finedge.runtime.trt.build.store.StoredEngine.with_entry", full)
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert "Read-only file system): the golden frame is replayed at every start" in caplog.text


def test_another_driver_replays_it_again(discrete, tiny_bundle, monkeypatch):
    device = discrete
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    replays(device)
    monkeypatch.setattr(
        "finedge.runtime.cuda.gpu.gpu", lambda: replace(gpu(device.cuda), driver="13.2")
    )
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert replays(device) == 1


@pytest.mark.parametrize("off", [0.01, np.nan])
def test_an_engine_that_answers_otherwise_is_not_used(device, tiny_bundle, off):
    device.off = off
    for _ in range(2):  # the record of a failure is no pass
        with pytest.raises(GateError, match=r"otherwise than model\.fp32\.onnx") as failure:
            TensorRtBackend().open(tiny_bundle, variant="fp32")
        assert failure.value.exit_code == 5
        assert failure.value.result["stages"][0]["pass"] is False
        assert device.cuda.live() == []
    assert record_of(tiny_bundle)[GOLDEN]["pass"] is False


def test_verify_holds_each_engine_against_the_file_it_was_built_from(
    device, tiny_bundle, tiny_data
):
    result = verify(tiny_bundle.path, backend="tensorrt", data=tiny_data, images=6)
    named = [s["name"] for s in result["stages"] if s["name"].startswith("logits pretended")]
    assert [n.split("-")[4] for n in named] == ["fp32", "int8"]
    assert result["pass"] is True
    assert all(s["max_abs"] < 1e-6 for s in result["stages"] if s["name"] in named), (
        "what ONNX Runtime answered, to the bit or nearly"
    )
    assert result["stages"][-1]["name"] == "top-1 int8"
    assert "--debug-taps" in next(s["skipped"] for s in result["stages"] if s["name"] == "taps")


def test_verify_shows_the_numbers_of_an_engine_that_fails(device, tiny_bundle, capsys):
    device.off = 0.01
    assert main(["verify", str(tiny_bundle.path), "--backend", "tensorrt"]) == 5
    stages = json.loads(capsys.readouterr().out)["stages"]
    failed = [s for s in stages if s["pass"] is False]
    assert failed[0]["name"].startswith("logits pretended-8sm-8gib-trt10.3.0-fp32")
    assert failed[0]["max_abs"] == pytest.approx(0.01, abs=1e-4)


def test_the_benchmark_streams_offline_and_reports_the_engine(device, tiny_bundle):
    modes = "single-stream,offline"
    single, offline = run_benchmark(
        (tiny_bundle.path,),
        backend="tensorrt",
        variants="fp32",
        mode=modes,
        batch=2,
        duration="300ms",
        images=6,
    )["rows"]
    assert (single["mode"], offline["mode"]) == ("single-stream", "offline")
    assert single["file_bytes"] == offline["file_bytes"] == len(b"fp32")
    assert single["engine_p50_ms"] > 0
    assert offline["engine_p50_ms"] is None, "it overlaps"
    assert offline["n"] >= 3
    assert device.cuda.live() == []


# --- memory for the input of an integrated GPU ---

INPUT = "input_memory"


@pytest.fixture
def integrated(device, monkeypatch):
    """A device whose GPU shares the CPU's memory; times are those of the fake's clock."""
    monkeypatch.setattr(input_memory, "perf_counter", lambda: device.cuda.now)
    return device


@pytest.mark.parametrize(
    ("costs", "chosen"),
    [
        ({"mapped": 0.009, "copied": 0.002}, "copied"),
        ({"mapped": 0.001, "copied": 0.002}, "mapped"),
        ({"mapped": 0.002, "copied": 0.002}, "mapped"),
    ],
)
def test_the_faster_input_memory_is_kept_and_recorded(
    integrated, tiny_bundle, caplog, costs, chosen
):
    caplog.set_level("INFO")
    integrated.cuda.costs.update(costs)
    with closing(TensorRtBackend().open(tiny_bundle, variant="fp32")) as session:
        assert session.input_memory == chosen
        integrated.cuda.calls.clear()
        session(np.zeros((1, 32, 32, 3), np.uint8))
        list(session.stream([np.zeros((1, 32, 32, 3), np.uint8)] * 3))
        assert ("cudaMemcpyAsync" in integrated.cuda.names()) == (chosen == "copied")
    assert integrated.cuda.live() == []
    entry = record_of(tiny_bundle)[INPUT]
    milliseconds = {name: pytest.approx(1e3 * seconds) for name, seconds in costs.items()}
    assert (entry["chosen"], entry["batch"], entry["ms"]) == (chosen, 1, milliseconds)
    assert f"input is {chosen}, the faster of" in caplog.text


def test_the_recorded_input_memory_is_taken_untimed(integrated, tiny_bundle):
    integrated.cuda.costs["mapped"] = 0.009
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert record_of(tiny_bundle)[GOLDEN]["pass"] is True
    integrated.cuda.calls.clear()
    with closing(TensorRtBackend().open(tiny_bundle, variant="fp32")) as session:
        assert session.input_memory == "copied"
        assert replays(integrated) == 0, "neither timed nor replayed"


def test_the_input_memory_is_timed_again_with_another_driver(integrated, tiny_bundle, monkeypatch):
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    newer = replace(gpu(integrated.cuda), driver="13.2")
    monkeypatch.setattr("finedge.runtime.cuda.gpu.gpu", lambda: newer)
    integrated.cuda.costs["mapped"] = 0.009
    with closing(TensorRtBackend().open(tiny_bundle, variant="fp32")) as session:
        assert session.input_memory == "copied"
    assert record_of(tiny_bundle)[INPUT]["driver"] == "13.2"


def test_a_gpu_with_its_own_memory_times_nothing(discrete, tiny_bundle):
    with closing(TensorRtBackend().open(tiny_bundle, variant="fp32")) as session:
        assert session.input_memory == "copied"
    assert INPUT not in record_of(tiny_bundle)


def test_without_room_for_both_memories_the_input_stays_mapped(
    integrated, tiny_bundle, monkeypatch, caplog
):
    malloc, calls = integrated.cuda.cudaMalloc, []

    def full(size):
        calls.append(size)
        return malloc(size) if len(calls) == 1 else (2, None)

    monkeypatch.setattr(integrated.cuda, "cudaMalloc", full)
    with closing(TensorRtBackend().open(tiny_bundle, variant="fp32")) as session:
        assert session.input_memory == "mapped"
    assert "the input stays mapped, untimed: cudaMalloc found no room" in caplog.text
    assert integrated.cuda.live() == []


@pytest.mark.parametrize("entry", ["mapped", {"chosen": "pinned"}, {}])
def test_an_entry_of_another_kind_is_timed_again(integrated, tiny_bundle, entry):
    engine = integrated.build(tiny_bundle, BuildOptions("fp32"), library=integrated.library)
    engine.with_entry(INPUT, entry)
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert record_of(tiny_bundle)[INPUT]["chosen"] == "mapped"


# --- taps ---


def test_without_an_engine_with_taps_the_reason_is_how_to_build_one(device, tiny_bundle):
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    with pytest.raises(NoTaps) as failure:
        TensorRtBackend().open_with_taps(tiny_bundle)
    assert "--precision fp32 --debug-taps" in failure.value.fix


def test_an_engine_with_taps_shows_them_and_is_never_taken_for_another(device, tiny_bundle):
    options = BuildOptions("fp32", debug_taps=True)
    device.build(tiny_bundle, options, library=device.library)
    device.library.trt.tensors["tap/features"] = (np.dtype(np.float32), (8, 32, 32))
    device.runs(tiny_bundle, options)
    with closing(TensorRtBackend().open_with_taps(tiny_bundle)) as session:
        assert session(np.zeros((1, 32, 32, 3), np.uint8))["tap/features"].shape == (1, 8, 32, 32)
    TensorRtBackend().open(tiny_bundle, variant="fp32").close()
    assert len(device.built) == 2


# --- where it cannot run ---


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_a_missing_library_is_named_with_what_installs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, MODULES[name][0], None)
    assert "is missing: pip install 'finedge[" in load_backend(name).why_not()


def test_without_a_gpu_the_library_is_not_even_loaded(rtx):
    if gpu() is not None:
        pytest.skip("this machine has a GPU")
    code = (
        "import sys; from finedge.runtime.backend import load_backend; "
        "from finedge.runtime.cuda.gpu import why_no_gpu; "
        "reason = load_backend('tensorrt-rtx').why_not(); "
        "print(reason == why_no_gpu(), 'tensorrt_rtx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_tensorrt_for_rtx_names_the_capabilities_it_has(monkeypatch):
    members = dict.fromkeys(("NONE", "CURRENT", "SM75", "SM120"))
    monkeypatch.setattr(
        "importlib.import_module",
        lambda name: SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=members)),
    )
    assert "7.5, 12.0, Orin has 8.7" in why_not_gpu("tensorrt_rtx", ORIN)
    assert why_not_gpu("tensorrt_rtx", replace(ORIN, compute_capability="12.0")) is None


def wheel(folder, name, version):
    """Write what pip leaves of an installed wheel."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_wheels_for_a_newer_cuda_than_the_drivers_are_refused_unloaded(tmp_path, monkeypatch):
    """The library would log error 35, and the next call would end the process."""
    (tmp_path / "tensorrt.py").write_text("raise AssertionError('loaded')")
    wheel(tmp_path, "tensorrt_cu13_libs", "11.4.0.106")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("finedge.runtime.trt.backend.gpu", lambda: gpu(FakeCuda()))
    assert why_not_backend("tensorrt") == (
        "the NVIDIA driver supports CUDA 12.6, tensorrt needs CUDA 13: update the driver, or "
        "install the build for CUDA 12: pip uninstall tensorrt tensorrt_cu13 "
        "tensorrt_cu13_bindings tensorrt_cu13_libs; pip install tensorrt_cu12==11.4.0.106"
    )


@pytest.mark.parametrize(
    ("module", "version"), [("tensorrt", "11.4.0.106"), ("tensorrt_rtx", "1.7.1.116")]
)
def test_no_build_is_named_that_nvidia_does_not_make(module, version):
    fix = driver_fix(module, version=version, cuda=13, driver=11)
    assert fix == f"update the driver: {module} {version} has no build for CUDA 11"
    assert f"pip install {module}_cu12=={version}" in driver_fix(
        module, version=version, cuda=13, driver=12
    )


def test_wheels_of_the_drivers_cuda_or_of_two_are_no_reason(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    wheel(tmp_path, "tensorrt_cu12_libs", "10.3.0")
    assert why_not_driver("tensorrt", "12.6") is None
    assert "needs CUDA 12" in why_not_driver("tensorrt", "11.8")
    assert str(why_not_driver("tensorrt", "11.8")).endswith("pip install tensorrt_cu11==10.3.0")
    wheel(tmp_path, "tensorrt_cu13_bindings", "10.13.3")
    assert cuda_major("tensorrt") == 0, "nobody knows which one is loaded"
    assert why_not_driver("tensorrt", "11.8") is None


def test_an_engine_of_another_model_is_refused(device, tiny_bundle):
    device.library.trt.tensors["frames"] = (np.dtype(np.uint8), (16, 16, 3))
    engine = EngineStore.of(tiny_bundle).keep(KEY, b"engine", {})
    with pytest.raises(BundleError, match=r"takes frames: uint8 \[B, 16, 16, 3\]"):
        TensorRtBackend().open_engine(tiny_bundle, engine)
    assert device.cuda.live() == []


# --- the real library ---


@pytest.fixture(scope="module")
def rtx() -> TrtLibrary:
    why = why_not("tensorrt-rtx")
    if why:
        pytest.skip(why)
    return load_library("tensorrt-rtx")


@pytest.fixture
def real(rtx, tiny_bundle) -> StoredEngine:
    """An engine that the real library built of the tiny bundle."""
    from finedge.runtime.trt.build.builder import build

    return build(tiny_bundle, BuildOptions("fp32", targets=("sm86",)), library=rtx)


@pytest.mark.parametrize(
    ("fake", "real"),
    [(FakeEngine, "ICudaEngine"), (FakeContext, "IExecutionContext")],
    ids=["engine", "context"],
)
def test_the_fake_library_has_no_call_that_the_real_one_lacks(rtx, fake, real):
    names = [n for n in dir(fake) if n[0] != "_" and n != "uses"]
    assert [n for n in names if not hasattr(getattr(rtx.trt, real), n)] == []


def test_the_real_library_has_what_its_own_graphs_are_asked_by(rtx):
    trt = rtx.trt
    names = {
        "cuda_graph_strategy",
        "dynamic_shapes_kernel_specialization_strategy",
        "set_execution_context_allocation_strategy",
    }
    assert names <= set(dir(trt.IRuntimeConfig))
    assert hasattr(trt.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE")
    assert hasattr(trt.CudaGraphStrategy, "DISABLED")
    assert hasattr(trt.DynamicShapesKernelSpecializationStrategy, "EAGER")
    assert hasattr(trt.ExecutionContextAllocationStrategy, "USER_MANAGED")
    assert hasattr(trt.ICudaEngine, "device_memory_size_v2")


def test_a_real_engine_without_a_gpu_says_that_the_driver_is_missing(rtx, real):
    if gpu() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemProblem, match="CUDA driver version is insufficient") as failure:
        Engine.load(real.read(), trt=rtx.trt, file=real.path.name)
    assert failure.value.exit_code == 3
    assert real.path.name in failure.value.what


def test_bytes_that_are_no_engine_are_called_so(rtx):
    with pytest.raises(SystemProblem, match="these bytes are no engine"):
        Engine.load(b"\0" * 200, trt=rtx.trt, file="x.engine")


def test_opening_without_a_gpu_is_exit_code_3(rtx, tiny_bundle, capsys):
    if gpu() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendMissing, match="cannot run here"):
        RtxBackend().open(tiny_bundle, variant="fp32")
    assert main(["verify", str(tiny_bundle.path), "--backend", "tensorrt-rtx"]) == 3
    assert why_no_gpu() in capsys.readouterr().err
