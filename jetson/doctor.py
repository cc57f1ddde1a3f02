"""`finedge doctor`: what this machine can run, and how to mend the rest."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finedge.cli import missing_library
from finedge.errors import SystemProblem
from finedge.runtime.backend import backend_names, load_backend
from finedge.runtime.environment import UNKNOWN, environment

SCHEMA = 1
MIN_FREE_MIB = 1024  # of memory and of disk: an engine build or an export needs about this much
INT8_FLAGS = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}
JETPACK = {32: 4, 34: 5, 35: 5, 36: 6, 38: 7}  # major release of L4T -> of JetPack
PRETENDERS = {"fake"}  # answers without computing, so that it can run says nothing


@dataclass(frozen=True)
class Problem:
    """Something that will be in the way, and what to do about it."""

    what: str
    fix: str


def doctor(*, root: Path = Path("/")) -> dict[str, Any]:
    """Say what this machine can run and how to mend the rest: a table on stderr, JSON on stdout.

    Exits 3 when no backend can run, else 0.

    Args:
        root: where /proc, /sys, /dev and /etc are looked for.
    """
    facts = examine(root)
    problems = find_problems(facts)
    result = {"schema": SCHEMA, **facts, "problems": [asdict(p) for p in problems]}
    _show(facts, problems)
    if all(why is not None for name, why in facts["backends"].items() if name not in PRETENDERS):
        raise SystemProblem("no backend can run here", expected="at least onnxruntime", fix=facts["backends"]["onnxruntime"], result=result)
    return result


def examine(root: Path = Path("/")) -> dict[str, Any]:
    """Return the facts as plain data; nothing is changed and no device is opened."""
    return {
        "environment": environment(root),
        "disk_free_mib": _disk_free_mib(),
        "opencv": opencv(),
        "cameras": cameras(root),
        "nvidia_driver": nvidia_driver(root),
        "jetson": jetson(root),
        "backends": {name: why_not(name) for name in backend_names()},
    }


def why_not(backend: str) -> str | None:
    """Return why a backend cannot run here, or None; a backend that cannot even be imported says so too."""
    try:
        return load_backend(backend).why_not()
    except ImportError as error:
        return f"{error}: {_mend(error)}"


def opencv() -> dict[str, Any]:
    """Return the version of OpenCV and whether it was built with FFmpeg (video files), GStreamer (CSI, RTSP) and V4L2 (cameras)."""
    try:
        import cv2
    except ImportError as error:
        return {"version": None, "error": str(error), "fix": _mend(error)}
    build = cv2.getBuildInformation()
    return {
        "version": cv2.__version__,
        **{name: built_with(build, word) for name, word in (("ffmpeg", "FFMPEG"), ("gstreamer", "GStreamer"), ("v4l2", "v4l/v4l2"))},
    }


def built_with(build: str, feature: str) -> bool:
    """Tell by the text of `cv2.getBuildInformation()` whether a feature is in."""
    return re.search(rf"^\s*{re.escape(feature)}:\s+YES", build, re.MULTILINE) is not None


def cameras(root: Path = Path("/")) -> list[dict[str, Any]]:
    """Return the V4L2 devices: path, the driver's name for it, and whether this user may read it."""
    devices = sorted((p for p in (root / "dev").glob("video[0-9]*")), key=lambda p: (len(p.name), p.name))
    names = {p: root / "sys/class/video4linux" / p.name / "name" for p in devices}
    return [{"device": f"/dev/{p.name}", "name": _text(n) or UNKNOWN, "readable": os.access(p, os.R_OK)} for p, n in names.items()]


def nvidia_driver(root: Path = Path("/")) -> str | None:
    """Return the version line of the NVIDIA kernel driver, or None where none is loaded."""
    lines = _text(root / "proc/driver/nvidia/version").splitlines()
    return lines[0].removeprefix("NVRM version:").strip() if lines else None


def jetson(root: Path = Path("/")) -> dict[str, Any] | None:
    """Return board, L4T release and JetPack major version of a Jetson, or None on other machines.

    /etc/nv_tegra_release starts `# R36 (release), REVISION: 4.3, ...`, which is L4T 36.4.3.
    """
    text = _text(root / "etc/nv_tegra_release")
    if not text:
        return None
    found = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text)
    board = _text(root / "proc/device-tree/model").strip("\0") or UNKNOWN
    if found is None:
        return {"board": board, "l4t": UNKNOWN, "jetpack": UNKNOWN}
    return {"board": board, "l4t": f"{found[1]}.{found[2]}", "jetpack": JETPACK.get(int(found[1]), UNKNOWN)}


def find_problems(facts: dict[str, Any]) -> list[Problem]:
    """Return what in the facts will be in the way, each with what to do."""
    checks = (*_picture_checks(facts), *_machine_checks(facts))
    return [Problem(what, fix) for applies, what, fix in checks if applies]


# Each check: whether it applies, what is wrong, what to do.
Check = tuple[bool, str, str]


def _picture_checks(facts: dict[str, Any]) -> Iterator[Check]:
    vision, on_jetson = facts["opencv"], facts["jetson"] is not None
    unreadable = [c["device"] for c in facts["cameras"] if not c["readable"]]
    no_ffmpeg, no_gstreamer = vision.get("ffmpeg") is False, vision.get("gstreamer") is False
    yield vision["version"] is None, f"cv2 cannot be imported: {vision.get('error')}", str(vision.get("fix"))
    yield no_ffmpeg, "this OpenCV has no FFmpeg: video files cannot be read", "pip install opencv-python (not on a Jetson), or apt-get install python3-opencv"
    # The wheel on the index has none, and found first it hides the cv2 of JetPack.
    yield on_jetson and no_gstreamer, "this OpenCV has no GStreamer", "pip uninstall opencv-python; make the venv with --system-site-packages"
    yield bool(unreadable), f"cameras that this user may not read: {', '.join(unreadable)}", "sudo usermod -aG video $USER, then log in again"


def _machine_checks(facts: dict[str, Any]) -> Iterator[Check]:
    machine, disk, runtime = facts["environment"], facts["disk_free_mib"], facts["backends"]["onnxruntime"]
    governor, memory, flags = machine["governor"], machine["memory_mib"], set(machine["cpu_flags"])
    free = memory.get("available", MIN_FREE_MIB) if isinstance(memory, dict) else MIN_FREE_MIB
    yield governor not in ("performance", UNKNOWN), f"the CPU governor is {governor}: clocks vary while measuring", _governor_fix(facts["jetson"] is not None)
    yield bool(flags) and not flags & INT8_FLAGS, "this CPU has no INT8 dot product: int8 may not be faster here", "finedge benchmark BUNDLE tells"
    yield free < MIN_FREE_MIB, f"{free} MiB of memory available", "close other programs, or add swap"
    yield disk < MIN_FREE_MIB, f"{disk} MiB free on disk", f"free at least {MIN_FREE_MIB} MiB"
    yield runtime is not None, f"backend onnxruntime cannot run: {runtime}", "pip install finedge"


def _governor_fix(on_jetson: bool) -> str:
    return "sudo jetson_clocks" if on_jetson else "sudo cpupower frequency-set -g performance"


def _mend(error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "pip install finedge (on a Jetson cv2 comes with JetPack: make the venv with --system-site-packages)"
    return missing_library(error).fix


def _disk_free_mib() -> int:
    """Return the free space where engines and machine settings go (`$FINEDGE_CACHE`, or the home folder)."""
    folder = Path(os.environ.get("FINEDGE_CACHE") or Path.home())
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free >> 20


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _show(facts: dict[str, Any], problems: list[Problem]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("what", "found", title="finedge doctor", title_justify="left")
    for name, value in _rows(facts):
        table.add_row(name, escape(value))
    console = Console(file=sys.stderr)
    console.print(table)
    for problem in problems:
        console.print(f"[bold]problem[/bold] {escape(problem.what)}\n  to do: {escape(problem.fix)}", highlight=False)
    if not problems:
        console.print("no problems found")


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    machine, vision = facts["environment"], facts["opencv"]
    features = [name for name in ("ffmpeg", "gstreamer", "v4l2") if vision.get(name)]
    board = facts["jetson"]
    return [
        ("platform", machine["platform"]),
        ("cpu", f"{machine['cpu']} ({' '.join(machine['cpu_flags']) or 'no flags of interest'})"),
        ("cores", str(machine["cores"])),
        ("governor, clocks", f"{machine['governor']}, {_joined(machine['clocks_mhz'])} MHz"),
        ("memory, disk", f"{_joined(machine['memory_mib'])} MiB, {facts['disk_free_mib']} MiB free"),
        ("python, packages", ", ".join([machine["python"], *(f"{n} {v}" for n, v in machine["versions"].items())])),
        ("opencv", f"{vision['version']} with {', '.join(features) or 'none of ffmpeg, gstreamer, v4l2'}"),
        ("cameras", ", ".join(f"{c['device']} ({c['name']})" for c in facts["cameras"]) or "none; test:// and files work"),
        ("nvidia driver", facts["nvidia_driver"] or "none"),
        ("jetson", f"{board['board']}, L4T {board['l4t']}, JetPack {board['jetpack']}" if board else "no"),
        *((f"backend {name}", why or "can run") for name, why in facts["backends"].items()),
    ]


def _joined(values: dict[str, float] | str) -> str:
    return values if isinstance(values, str) else ", ".join(f"{name}: {value:g}" for name, value in values.items())
