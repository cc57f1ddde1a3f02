from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from finedge import terminal
from finedge.cli import main
from finedge.jetson.doctor.board import JETPACKS, jetpack, jetson
from finedge.jetson.doctor.checks import find_problems
from finedge.jetson.doctor.command import doctor
from finedge.jetson.doctor.cuda import cuda_toolkit
from finedge.jetson.doctor.decoders import hardware, used
from finedge.jetson.doctor.facts import disk_free_mib, examine, swap_mib
from finedge.jetson.doctor.gpu import nvidia_driver, plugin_image, tensorrt
from finedge.jetson.doctor.pictures import built_with, cameras, gstreamer
from finedge.jetson.doctor.show import show
from finedge.runtime.backend import backend_names, why_not
from finedge.runtime.telemetry import Telemetry
from finedge.runtime.trt.plugin.image import images
from tests.jetson.boards.trees import BOARDS, JETSONS, alerts, make, write

ORIN_GPU = {
    "name": "Orin",
    "compute_capability": "8.7",
    "integrated": True,
    "processors": 8,
    "memory_mib": 7619,
    "driver": "12.6",
}


TORCH_VERSION = """
from typing import Optional
__version__ = '2.11.0+cu130'
cuda: Optional[str] = '13.0'
hip: Optional[str] = None
"""


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """The system files of an Orin Nano with a USB and a CSI camera."""
    return make(tmp_path, "orin-nano")


@pytest.fixture(scope="module")
def healthy() -> dict[str, Any]:
    """The facts of a machine without problems, made of this one's."""
    facts = examine()
    facts["environment"] |= {
        "governor": "performance",
        "cpu_flags": ["avx_vnni"],
        "memory_mib": {"total": 8000, "available": 8000},
    }
    facts |= {
        "disk_free_mib": 100_000,
        "cameras": [],
        "jetson": None,
        "opencv": {"version": "5", "ffmpeg": True, "gstreamer": False, "v4l2": True},
    }
    return facts | {
        "telemetry": Telemetry().to_json(),
        "power_modes": {},
        "nvidia_driver": None,
        "cuda_versions": {"driver": None},
        "gpu": None,
    }


@pytest.fixture(scope="module")
def healthy_orin(healthy: dict[str, Any]) -> dict[str, Any]:
    """The facts of an Orin Nano without problems."""
    facts = copy.deepcopy(healthy)
    facts |= {
        "jetson": {"board": "Orin Nano", "l4t": "36.4.3", "jetpack": "6.2"},
        "nvidia_driver": "540.4.0",
        "gpu": ORIN_GPU,
        "swap_mib": {"/swapfile": 8192},
    }
    facts |= {
        "telemetry": Telemetry(
            power_mode="MAXN_SUPER", clocks_locked=True, throttled=False
        ).to_json(),
        "power_modes": {0: "15W", 2: "MAXN_SUPER"},
    }
    facts |= {
        "plugin_image": plugin_image(ORIN_GPU),
        "backends": {"onnxruntime": None, "tensorrt": None, "tensorrt-rtx": "no"},
    }
    facts["tensorrt"] = {
        "tensorrt": {"version": "10.3.0", "why_not": None},
        "system": {"version": "10.3.0", "python": "python3.10"},
    }
    facts["gstreamer"] = {
        "why_not": None,
        "gst_launch": True,
        "gi": True,
        "elements": {"nvvidconv": True},
        "argus": True,
    }
    facts["environment"] |= {"governor": "schedutil"}
    return facts


def test_a_jetson_is_known_by_its_files(orin: Path) -> None:
    assert jetson(orin) == {
        "board": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "l4t": "36.4.3",
        "jetpack": "6.2",
    }
    assert nvidia_driver(orin) == "NVIDIA UNIX Open Kernel Module for aarch64  540.4.0"
    assert cuda_toolkit(orin) == "12.6.11"
    assert tensorrt(orin)["system"] == {"version": "10.3.0", "python": "python3.10"}
    assert swap_mib(orin) == {"/dev/zram0": 634}


@pytest.mark.parametrize(
    ("board", "version"),
    [("orin-nano", "6.2"), ("orin-nx", "6.2.1"), ("agx-orin", "6.2.2"), ("thor", "7.1")],
)
def test_each_board_has_its_jetpack(tmp_path: Path, board: str, version: str) -> None:
    facts = jetson(make(tmp_path, board))
    assert facts is not None
    assert facts["jetpack"] == version


@pytest.mark.parametrize(
    ("l4t", "version"),
    [
        *JETPACKS.items(),
        ("36.3", "6.0"),
        ("38.4", "7.1"),
        ("36.9.1", "6"),
        ("39.9.0", "7"),
        ("35.6.0", "5"),
        ("99.1.0", "unknown"),
    ],
)
def test_a_release_outside_the_table_has_its_major_version_at_most(l4t: str, version: str) -> None:
    assert jetpack(l4t) == version


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"cuda-12.6/version.json": '{"cuda": {"version": "12.6.11"}}'}, "12.6.11"),
        ({"cuda-13.0/targets/x86_64-linux/lib/libcudart.so.13.0.96": ""}, "13.0.96"),
        ({"cuda/lib64/libcudart.so.12.6.77": "", "cuda/version.json": "{"}, "12.6.77"),
        ({"cuda/lib64/libcudart.so.13": ""}, None),
    ],
)
def test_a_toolkit_is_found_by_its_file_or_its_runtime(
    tmp_path: Path, files: dict[str, str], version: str | None
) -> None:
    write(tmp_path, {f"usr/local/{name}": content for name, content in files.items()})
    assert cuda_toolkit(tmp_path) == version


def test_a_machine_with_torch_alone_has_torchs_cuda_and_the_drivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, healthy: dict[str, Any]
) -> None:
    write(
        tmp_path, {"torch/__init__.py": "raise AssertionError", "torch/version.py": TORCH_VERSION}
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr("finedge.jetson.doctor.cuda.driver_version", lambda: 13000)
    monkeypatch.setattr("finedge.jetson.doctor.cuda.binding", lambda: None)
    monkeypatch.setattr("finedge.runtime.cuda.binding.BINDINGS", ("no_such_binding",))
    facts = examine(tmp_path)
    assert facts["cuda"] == "13.0"
    versions = {name: facts["cuda_versions"][name] for name in ("torch", "driver", "binding")}
    assert versions == {"torch": "13.0", "driver": "13.0", "binding": None}
    keys = ("gpu", "why_no_gpu", "cuda_versions")
    (problem,) = find_problems(healthy | {key: facts[key] for key in keys})
    assert problem.what == "the GPU cannot be used"
    assert "pip install cuda-bindings" in problem.fix


def test_cameras_are_csi_or_v4l2_by_their_connection(orin: Path) -> None:
    write(orin, {"dev/video10": "", "dev/video-dec0": ""})
    devices = [(c["device"], c["kind"], c["readable"]) for c in cameras(orin)]
    assert devices == [
        ("/dev/video0", "v4l2", True),
        ("/dev/video1", "csi", True),
        ("/dev/video10", "v4l2", True),
    ]
    assert cameras(orin)[2]["name"] == "unknown"


def test_decoders_in_hardware_are_found_by_their_devices(tmp_path: Path) -> None:
    codecs = "sys/class/video4linux"
    names = {
        f"{codecs}/video0/name": "HD USB Camera",
        f"{codecs}/video10/name": "bcm2835-codec-decode",
        f"{codecs}/video2/name": "rkvdec",
        "dev/dri/card0": "",
        "dev/dri/renderD128": "",
    }
    found = hardware(write(tmp_path, names))
    assert found["render_nodes"] == ["/dev/dri/renderD128"]
    assert found["v4l2"] == {"/dev/video2": "rkvdec", "/dev/video10": "bcm2835-codec-decode"}
    assert hardware(tmp_path / "nothing") | {"nvdec": None, "gstreamer": []} == {
        "render_nodes": [],
        "nvdec": None,
        "v4l2": {},
        "gstreamer": [],
    }


def test_what_decodes_is_what_the_sources_use() -> None:
    assert used()["rtsp"] == "ffmpeg, on the CPU"  # NVIDIA's decoder is not here
    assert used()["files, http"] == "ffmpeg, on the CPU"
    assert "nvv4l2decoder" not in hardware()["gstreamer"]


def test_gstreamer_is_looked_for_where_jetpack_puts_it(orin: Path) -> None:
    facts = gstreamer(orin)
    assert facts["gst_launch"]
    assert facts["argus"]
    assert all(facts["elements"].values())
    (orin / "usr/lib/aarch64-linux-gnu/gstreamer-1.0/libgstnvvidconv.so").unlink()
    assert gstreamer(orin)["elements"]["nvvidconv"] is False


def test_another_machine_is_not_a_jetson(tmp_path: Path) -> None:
    assert jetson(tmp_path) is None
    assert nvidia_driver(tmp_path) is None
    assert cuda_toolkit(tmp_path) is None
    assert tensorrt(tmp_path)["system"] is None
    assert cameras(tmp_path) == []


def test_a_jetson_with_an_unknown_release_file_is_still_a_jetson(tmp_path: Path) -> None:
    write(tmp_path, {"etc/nv_tegra_release": "release forty"})
    assert jetson(tmp_path) == {"board": "unknown", "l4t": "unknown", "jetpack": "unknown"}


@pytest.mark.parametrize(
    ("capability", "driver"), sorted({(i.architecture, i.driver) for i in images()})
)
def test_each_gpu_with_an_image_gets_it_named(capability: int, driver: int) -> None:
    device = ORIN_GPU | {
        "compute_capability": f"{capability // 10}.{capability % 10}",
        "driver": f"{driver // 1000}.{driver % 1000 // 10}",
    }
    image = plugin_image(device)
    assert str(capability) in str(image["file"])
    assert image["why_not"] is None


def test_a_gpu_without_an_image_gets_the_reason() -> None:
    image = plugin_image(ORIN_GPU | {"compute_capability": "3.5"})
    assert image["file"] is None
    assert "compute capability 3.5" in str(image["why_not"])
    assert plugin_image(None)["file"] is None


@pytest.mark.parametrize("backend", backend_names())
def test_every_backend_is_asked(backend: str) -> None:
    assert examine()["backends"][backend] == why_not(backend)


def test_the_command_prints_json_on_stdout_and_a_table_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts["schema"] == 1
    assert set(facts["backends"]) == set(backend_names())
    assert all(name in err for name in backend_names())
    assert all(p["what"] and p["fix"] for p in facts["problems"])


@pytest.mark.parametrize(
    ("products", "text"),
    [
        ("exact", "products are exact"),
        ("saturating", "scales weights to fit sums of 16 bits"),
        ("unknown: no", "unknown: no"),
    ],
)
def test_the_page_says_what_int8_becomes_on_this_cpu(
    products: str,
    text: str,
    healthy: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    facts = healthy | {"environment": healthy["environment"] | {"int8_products": products}}
    terminal.console().print(show({**facts, "problems": []}))
    assert text in capsys.readouterr().out


def test_json_alone_leaves_stderr_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["schema"] == 1
    assert err == ""


def test_on_a_terminal_stdout_has_the_table_and_no_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert "power and heat" in out
    assert "{" not in out
    assert "backends" not in err


@pytest.mark.parametrize("board", BOARDS)
def test_the_page_of_each_board_fits_80_columns(
    tmp_path: Path, board: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = doctor(root=make(tmp_path, board))
    lines = capsys.readouterr().err.splitlines()
    assert result is not None
    assert json.dumps(result)
    assert all(len(line) <= 80 for line in lines if not line.startswith("  to do: "))
    assert (result["telemetry"]["power_mode"] or "unknown") in "\n".join(lines)


@pytest.mark.parametrize("board", JETSONS)
def test_a_tensorrt_that_this_python_does_not_see_is_a_problem(tmp_path: Path, board: str) -> None:
    facts = examine(make(tmp_path, board))
    facts["tensorrt"]["tensorrt"] = {"version": None, "why_not": "missing"}
    assert any(
        "TensorRT 10.3.0 is not visible" in p.what and "--system-site-packages" in p.fix
        for p in find_problems(facts)
    )


def test_a_healthy_machine_has_no_problems(
    healthy: dict[str, Any], healthy_orin: dict[str, Any]
) -> None:
    assert find_problems(healthy) == []
    assert find_problems(healthy_orin) == []


def test_throttling_of_a_board_is_a_problem(orin: Path) -> None:
    write(orin, alerts(("cpu", "gpu"), active=("gpu",)))
    assert any("gpu-throttle-alert" in p.what for p in find_problems(examine(orin)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"jetson.jetpack": "5"}, "JetPack 6.1 or newer"),
        ({"jetson.jetpack": "6.0"}, "JetPack 6.1 or newer"),
        ({"telemetry.power_mode": "15W"}, "sudo nvpmodel -m 2"),
        ({"telemetry.clocks_locked": False}, "sudo jetson_clocks"),
        (
            {"telemetry.throttled": True, "telemetry.throttled_by": ["oc1 (under-voltage)"]},
            "stronger supply",
        ),
        ({"swap_mib": {}, "environment.memory_mib": {"total": 7619, "available": 6000}}, "mkswap"),
        ({"gstreamer.why_not": "no gi"}, "python3-gi"),
        ({"gstreamer.elements": {"nvarguscamerasrc": False}}, "nvidia-l4t-gstreamer"),
        (
            {
                "cameras": [
                    {"device": "/dev/video0", "name": "vi-output", "kind": "csi", "readable": True}
                ],
                "gstreamer.argus": False,
            },
            "nvargus-daemon",
        ),
        (
            {"gpu": None, "why_no_gpu": "no CUDA binding: pip install cuda-python"},
            "pip install cuda-python",
        ),
        ({"backends.tensorrt": "TensorRT is too old"}, "TensorRT is too old"),
        (
            {"plugin_image": {"file": None, "why_not": "no image loads: update the driver"}},
            "update the driver",
        ),
        ({"tensorrt.tensorrt": {"version": None, "why_not": "missing"}}, "--system-site-packages"),
        (
            {"tensorrt.tensorrt": {"version": None, "why_not": "missing"}, "tensorrt.system": None},
            "apt-get install nvidia-jetpack",
        ),
    ],
)
def test_each_fault_of_a_jetson_is_found_with_its_fix(
    changes: dict[str, Any], text: str, healthy_orin: dict[str, Any]
) -> None:
    facts = copy.deepcopy(healthy_orin)
    for path, value in changes.items():
        *outer, last = path.split(".")
        place = facts
        for key in outer:
            place = place[key]
        place[last] = value
    (problem,) = find_problems(facts)
    assert text in problem.fix
    show({**facts, "problems": [asdict(problem)]})  # the page can show it


def test_a_gpu_that_only_onnxruntime_uses_is_no_problem(healthy_orin: dict[str, Any]) -> None:
    facts = copy.deepcopy(healthy_orin)
    no = "no CUDA binding: pip install cuda-python"
    facts |= {"gpu": None, "why_no_gpu": no}
    facts["backends"] = {"onnxruntime": None, "tensorrt": no, "onnxruntime-gpu": None}
    assert find_problems(facts) == []
    facts["backends"]["onnxruntime-gpu"] = "CUDAExecutionProvider: CUDA failure 100"
    assert [problem.fix for problem in find_problems(facts)] == [no]


def test_the_page_names_the_providers_of_onnxruntime(
    healthy: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    reasons = {"TensorrtExecutionProvider": "missing", "CUDAExecutionProvider": None}
    facts = healthy | {"onnxruntime_providers": reasons, "problems": []}
    terminal.console().print(show(facts))
    rows = [line for line in capsys.readouterr().out.splitlines() if "ExecutionProvider" in line]
    assert any("CUDAExecutionProvider" in r and "TensorrtExec" not in r for r in rows)


@pytest.mark.parametrize(
    ("where", "value", "text"),
    [
        (
            ("opencv",),
            {"version": None, "error": "libGL.so.1: cannot open", "fix": "apt-get install libgl1"},
            "apt-get install libgl1",
        ),
        (
            ("decoders", "pyav"),
            {"version": None, "error": "the package av is missing", "fix": "pip install av"},
            "pip install av",
        ),
        (("opencv", "ffmpeg"), False, "--save cannot write a video"),
        (
            ("cameras",),
            [{"device": "/dev/video0", "name": "cam", "kind": "v4l2", "readable": False}],
            "usermod -aG video",
        ),
        (("environment", "governor"), "powersave", "cpupower frequency-set"),
        (("environment", "cpu_flags"), ["avx2"], "no INT8 dot product"),
        (
            ("environment", "memory_mib"),
            {"total": 4000, "available": 500},
            "500 MiB of memory available",
        ),
        (("disk_free_mib",), 10, "10 MiB free"),
        (("backends", "onnxruntime"), "needs onnx: pip install finedge", "pip install finedge"),
    ],
)
def test_each_fault_is_found_with_its_fix(
    where: tuple[str, ...], value: object, text: str, healthy: dict[str, Any]
) -> None:
    facts = copy.deepcopy(healthy)
    inner = facts
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    (problem,) = find_problems(facts)
    assert text in problem.what + problem.fix
    assert problem.what
    assert problem.fix


def test_build_features_are_read_from_opencvs_own_text() -> None:
    build = "\n".join(
        (
            "  Video I/O:",
            "    FFMPEG:       YES",
            "      avcodec:    YES (61.19)",
            "    GStreamer:    NO",
            "    v4l/v4l2:     YES (linux/videodev2.h)",
        )
    )
    assert [built_with(build, name) for name in ("FFMPEG", "GStreamer", "v4l/v4l2")] == [
        True,
        False,
        True,
    ]


def run_without(*modules: str) -> subprocess.CompletedProcess[str]:
    """Run the doctor in a Python that lacks these packages."""
    # tyro believes that torch is loaded when its name is in sys.modules. For torch it is enough to
    # hide it from find_spec.
    blocked = [module for module in modules if module != "torch"]
    code = f"""
import importlib.util, sys
for module in {blocked}:
    sys.modules[module] = None
find = importlib.util.find_spec
importlib.util.find_spec = lambda n, p=None: None if n in {modules} else find(n, p)
from finedge.cli import main
sys.exit(main(["doctor"]))
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_cv2_the_doctor_still_reports() -> None:
    process = run_without("cv2")
    assert process.returncode == 0
    facts = json.loads(process.stdout)
    assert facts["opencv"]["version"] is None
    assert any("cv2 cannot be imported" in p["what"] for p in facts["problems"])


def test_without_pyav_the_doctor_still_reports() -> None:
    process = run_without("av")
    assert process.returncode == 0
    facts = json.loads(process.stdout)
    assert facts["decoders"]["pyav"]["fix"] == "pip install av"
    assert any("network streams cannot be read" in p["what"] for p in facts["problems"])


def test_without_any_backend_it_exits_3_and_prints_its_facts() -> None:
    process = run_without("onnxruntime", "onnx", "torch")
    facts = json.loads(process.stdout)
    assert process.returncode == 3, facts["backends"]
    assert "onnxruntime" in facts["backends"]["onnxruntime"]
    assert any("onnxruntime" in p["what"] for p in facts["problems"])


def test_the_doctor_never_imports_torch() -> None:
    code = (
        "import sys; from finedge.jetson.doctor.facts import examine; "
        "examine(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("cache", ["/proc/1/fd/x", "not/yet/there", "/proc/version/x"])
def test_free_space_of_a_missing_or_foreign_cache_is_a_number(
    cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINEDGE_CACHE", cache)
    assert disk_free_mib() >= 0


def test_a_user_without_a_home_has_free_space_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FINEDGE_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert disk_free_mib() >= 0
