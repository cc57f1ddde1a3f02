"""CUDA with every status checked: machines without a GPU, with one, and failures."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import pytest

from finedge.errors import SystemProblem
from finedge.runtime.cuda.binding import Cuda, OutOfDeviceMemory, binding
from finedge.runtime.cuda.gpu import Gpu, gpu, why_no_gpu
from finedge.runtime.trt.buffers import device_memory
from tests.runtime.cuda.fakes import FakeCuda, RaisingCuda


def test_the_facts_of_the_gpu():
    assert gpu(FakeCuda(integrated=True)) == Gpu(
        "Pretended", "8.7", integrated=True, processors=8, memory_mib=8192, driver="12.6"
    )
    assert why_no_gpu(FakeCuda()) is None


def test_importing_it_needs_neither_driver_nor_binding():
    code = (
        "import sys; sys.modules['cuda'] = None; "
        "from finedge.runtime.cuda.gpu import gpu, why_no_gpu; print(gpu(), why_no_gpu())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("None no CUDA binding for Python: pip install cuda-bindings")


def test_the_installed_binding_answers_without_an_exception():
    pytest.importorskip("cuda.bindings.runtime")
    assert (gpu() is None) == isinstance(why_no_gpu(), str)


@pytest.mark.parametrize(
    ("status", "driver", "devices", "text"),
    [
        (35, 0, 0, "no NVIDIA driver"),
        (
            35,
            12020,
            0,
            "supports CUDA 12.2, the binding needs 13.5: "
            "update it, or pip install 'cuda-bindings<13' and a TensorRT for CUDA 12 "
            "(tensorrt-cu12; on a Jetson JetPack's)",
        ),
        (100, 12060, 0, "CUDA sees no NVIDIA GPU"),
        (0, 12060, 0, "it counts 0"),
    ],
)
def test_why_there_is_no_gpu(monkeypatch, status, driver, devices, text):
    api = FakeCuda(devices=devices)
    api.count_status = status
    monkeypatch.setattr(api, "cudaDriverGetVersion", lambda: (0, driver))
    assert text in why_no_gpu(api)
    assert gpu(api) is None


def test_a_binding_that_raises_without_libcuda_is_no_driver():
    """cuda-python 12.6.2 (JetPack 6) and cuda-bindings 12.8 do, at the first call and later."""
    api = RaisingCuda()
    for _ in range(2):
        assert why_no_gpu(api).startswith("no NVIDIA driver: install one")
        assert gpu(api) is None


def test_a_call_that_raises_is_a_typed_error_with_the_bindings_text(caplog):
    cuda = Cuda(RaisingCuda())
    with pytest.raises(SystemProblem, match="Failed to dlopen libcuda"):
        cuda("cudaStreamCreateWithFlags", 1)
    with pytest.raises(SystemProblem, match="cudaMalloc of 16 bytes failed: RuntimeError"):
        cuda.allocate("cudaMalloc", 16, size=16)
    cuda.release("cudaFree", 1)
    assert 'cudaFree failed: RuntimeError: Function "cuInit" not found' in caplog.text
    assert cuda.free() == "how much is free is unknown"
    assert cuda.name(35) == "status (35)"


@pytest.mark.parametrize("call", ["cudaGetDeviceCount", "cudaGetDeviceProperties"])
@pytest.mark.parametrize(
    "error", [OSError("libcudart.so.12"), ValueError("two\nlines"), KeyError()]
)
def test_no_failure_of_the_binding_is_raised_by_the_probe(monkeypatch, call, error):
    def fail(*arguments):
        raise error

    api = FakeCuda()
    monkeypatch.setattr(api, call, fail)
    reason = why_no_gpu(api)
    assert reason.startswith(f"the CUDA binding fails: {type(error).__name__}")
    assert "\n" not in reason
    assert gpu(api) is None


def test_a_gpu_whose_facts_cannot_be_read_is_none_with_the_reason(monkeypatch):
    api = FakeCuda()
    monkeypatch.setattr(api, "cudaGetDeviceProperties", lambda device: (719, None))
    assert gpu(api) is None
    assert why_no_gpu(api).startswith("cudaGetDeviceProperties failed: cudaErrorLaunchFailure")


@pytest.fixture
def no_cuda_modules(monkeypatch):
    """No module of a CUDA binding is loaded; those that the test loads are removed."""
    for name in _cuda_modules():
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in _cuda_modules():
        del sys.modules[name]


def _cuda_modules():
    return [name for name in sys.modules if name.partition(".")[0] == "cuda"]


@pytest.mark.usefixtures("no_cuda_modules")
def test_a_binding_that_is_installed_and_does_not_load_says_so(monkeypatch, tmp_path):
    package = tmp_path / "cuda" / "bindings"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "runtime.py").write_text("raise OSError('libcudart.so.12: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    assert binding() is None
    what, _, fix = str(why_no_gpu()).partition(": pip ")
    assert what == (
        "the package cuda.bindings.runtime does not load: OSError: libcudart.so.12: no such file"
    )
    assert fix.startswith("install --force-reinstall cuda")


def test_hidden_devices_are_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "CUDA_VISIBLE_DEVICES is '-1'" in why_no_gpu(FakeCuda(devices=0))


def test_a_failed_call_is_named_with_cudas_name_and_text():
    with pytest.raises(
        SystemProblem,
        match=r"cudaStreamCreateWithFlags failed: cudaErrorLaunchFailure \(719\): pretended",
    ) as failure:
        Cuda(FakeCuda(fail_at=0))("cudaStreamCreateWithFlags", 1)
    assert failure.value.exit_code == 3


def test_a_full_memory_says_what_was_asked_what_is_free_and_what_to_do():
    with ExitStack() as stack, pytest.raises(OutOfDeviceMemory) as failure:
        device_memory(50 << 20, cuda=Cuda(FakeCuda(fail_at=0, fail_with=2)), stack=stack)
    assert "no room for 50.0 MiB; 123 of 8192 MiB are free" in str(failure.value)
    assert "smaller maximum batch" in failure.value.fix


def test_a_refused_release_is_logged_and_not_raised(caplog, monkeypatch):
    api = FakeCuda()
    monkeypatch.setattr(api, "cudaFree", lambda pointer: (719,))
    Cuda(api).release("cudaFree", 1)
    assert "cudaFree failed: cudaErrorLaunchFailure" in caplog.text


def test_jetpacks_older_binding_is_taken_where_the_newer_is_missing(monkeypatch):
    old = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "cuda", old)
    monkeypatch.setitem(sys.modules, "cuda.cudart", old)
    assert binding() is old


def test_the_fake_binding_has_nothing_that_the_real_one_lacks():
    real = pytest.importorskip("cuda.bindings.runtime")
    names = [n for n in dir(FakeCuda) if n.startswith("cuda")]
    assert len(names) > 20
    assert [n for n in names if not hasattr(real, n)] == []
    assert hasattr(real.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
    assert {
        hasattr(real.cudaMemcpyKind, f"cudaMemcpy{way}") for way in ("HostToDevice", "DeviceToHost")
    } == {True}
    facts = real.cudaDeviceProp()
    assert [n for n in vars(FakeCuda().properties) if not hasattr(facts, n)] == []
