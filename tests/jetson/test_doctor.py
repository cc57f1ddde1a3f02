from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finedge.cli import main
from finedge.jetson.doctor import built_with, cameras, doctor, examine, find_problems, jetson, nvidia_driver, why_not
from finedge.runtime.backend import backend_names

ORIN = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """A made root of a Jetson with two cameras."""
    write(tmp_path, "etc/nv_tegra_release", ORIN)
    write(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    write(tmp_path, "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0\nGCC version: 11\n")
    for number in (10, 2):
        write(tmp_path, f"dev/video{number}", "")
        write(tmp_path, f"sys/class/video4linux/video{number}/name", f"Webcam {number}\n")
    write(tmp_path, "dev/video-dec0", "")
    return tmp_path


@pytest.fixture(scope="module")
def healthy() -> dict[str, Any]:
    """The facts of a machine without problems, made of this one's."""
    facts = examine()
    facts["environment"] |= {"governor": "performance", "cpu_flags": ["avx_vnni"], "memory_mib": {"total": 8000, "available": 8000}}
    facts |= {"disk_free_mib": 100_000, "cameras": [], "jetson": None, "opencv": {"version": "5", "ffmpeg": True, "gstreamer": False, "v4l2": True}}
    return facts


def test_a_jetson_is_known_by_its_release_file(orin: Path) -> None:
    assert jetson(orin) == {"board": "NVIDIA Jetson Orin Nano Developer Kit", "l4t": "36.4.3", "jetpack": 6}
    assert nvidia_driver(orin) == "NVIDIA UNIX Open Kernel Module for aarch64  540.4.0"
    assert cameras(orin) == [{"device": f"/dev/video{n}", "name": f"Webcam {n}", "readable": True} for n in (2, 10)]


def test_another_machine_is_no_jetson(tmp_path: Path) -> None:
    assert jetson(tmp_path) is None
    assert nvidia_driver(tmp_path) is None
    assert cameras(tmp_path) == []


def test_a_release_file_of_a_new_form_is_unknown_and_still_a_jetson(tmp_path: Path) -> None:
    write(tmp_path, "etc/nv_tegra_release", "release forty\n")
    assert jetson(tmp_path) == {"board": "unknown", "l4t": "unknown", "jetpack": "unknown"}


@pytest.mark.parametrize("backend", backend_names())
def test_every_backend_is_asked(backend: str) -> None:
    assert examine()["backends"][backend] == why_not(backend)


def test_the_command_prints_json_on_stdout_and_a_table_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts["schema"] == 1
    assert set(facts["backends"]) == set(backend_names())
    assert all(name in err for name in backend_names())
    assert all(p["what"] and p["fix"] for p in facts["problems"])


def test_a_jetson_with_an_opencv_that_lacks_gstreamer_is_told(orin: Path) -> None:
    result = doctor(root=orin)
    assert result["jetson"]["jetpack"] == 6
    if not result["opencv"]["gstreamer"]:
        assert any("GStreamer" in p["what"] and "opencv-python" in p["fix"] for p in result["problems"])


def test_a_healthy_machine_has_no_problems(healthy: dict[str, Any]) -> None:
    assert find_problems(healthy) == []


@pytest.mark.parametrize(
    ("where", "value", "text"),
    [
        (("opencv",), {"version": None, "error": "libGL.so.1: cannot open", "fix": "apt-get install libgl1"}, "apt-get install libgl1"),
        (("opencv", "ffmpeg"), False, "video files cannot be read"),
        (("cameras",), [{"device": "/dev/video0", "name": "cam", "readable": False}], "usermod -aG video"),
        (("environment", "governor"), "powersave", "cpupower frequency-set"),
        (("environment", "cpu_flags"), ["avx2"], "no INT8 dot product"),
        (("environment", "memory_mib"), {"total": 4000, "available": 500}, "500 MiB of memory available"),
        (("disk_free_mib",), 10, "10 MiB free"),
        (("backends", "onnxruntime"), "needs onnx: pip install finedge", "pip install finedge"),
    ],
)
def test_each_fault_is_found_and_says_how_to_mend_it(where: tuple[str, ...], value: object, text: str, healthy: dict[str, Any]) -> None:
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
        ("  Video I/O:", "    FFMPEG:       YES", "      avcodec:    YES (61.19)", "    GStreamer:    NO", "    v4l/v4l2:     YES (linux/videodev2.h)")
    )
    assert [built_with(build, name) for name in ("FFMPEG", "GStreamer", "v4l/v4l2")] == [True, False, True]


def run_without(*modules: str) -> subprocess.CompletedProcess[str]:
    """Run the doctor in a Python that lacks these packages."""
    # tyro takes torch for loaded when it finds the name in sys.modules: for torch, hiding it from find_spec is enough.
    hide = "".join(f"sys.modules['{m}'] = None; " for m in modules if m != "torch")
    hide += f"import importlib.util as u; find = u.find_spec; u.find_spec = lambda n, p=None: None if n in {modules} else find(n, p); "
    code = f"import sys; {hide} from finedge.cli import main; sys.exit(main(['doctor']))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_cv2_the_doctor_still_speaks() -> None:
    done = run_without("cv2")
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert facts["opencv"]["version"] is None
    assert any("cv2 cannot be imported" in p["what"] for p in facts["problems"])


def test_without_any_backend_it_exits_3_and_still_prints_what_it_found() -> None:
    done = run_without("onnxruntime", "onnx", "torch")
    facts = json.loads(done.stdout)
    assert done.returncode == 3, facts["backends"]
    assert "onnxruntime" in facts["backends"]["onnxruntime"]
    assert any("onnxruntime" in p["what"] for p in facts["problems"])


def test_the_doctor_never_imports_torch() -> None:
    code = "import sys; from finedge.jetson.doctor import examine; examine(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
