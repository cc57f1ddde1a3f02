"""NVIDIA's bindings of one version with a libnvinfer of our own beside them, in a folder.

    python -m tests.runtime.trt.bindings.mock_library OUT --version 10.13.3.9 --python 3.12

leaves in OUT the packages `tensorrt` and `tensorrt_bindings`, as NVIDIA's wheels have them. The
bindings leave nine symbols undefined; the library made of `mock/*.cpp` defines them. OUT must be a
temporary folder: a process that finds this library computes nothing. Never put it near a real
libnvinfer.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

from tests.runtime.trt.bindings.interfaces import header
from tests.wheels import PYTHON, Wheel, folder, pinned

WHEELS = {w.version: w for w in pinned(Path(__file__).with_name("wheels.txt")).values()}
SOURCES = sorted((Path(__file__).parent / "mock").glob("*.cpp"))
COMPILE = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
LIBRARY = ["-shared", "-fPIC", "-fvisibility=hidden"]
NEEDED = re.compile(r"NEEDED.*\[(libnv[\w.]+)\]")
# What the package `tensorrt` of NVIDIA's wheel does.
PACKAGE = """from tensorrt_bindings import *
from tensorrt_bindings import __version__
"""


def make(version: str, out: Path, *, python: str = PYTHON) -> Path:
    """Put the bindings of a version and the mock into `out`; return `out`, for sys.path.

    `python` is the version of Python that will import them, like "3.12".

    Raises:
        WheelMissing: the bindings cannot be downloaded.
        FileNotFoundError: there is no g++ or no readelf.
    """
    bindings = out / "tensorrt_bindings"
    shutil.copytree(folder(wheel(version), python=python) / bindings.name, bindings)
    names = needed(bindings / "tensorrt.so")
    main = next(name for name in names if name.startswith("libnvinfer.so"))
    with_header(version, out / "mock")
    sources = [str(source) for source in SOURCES]
    _run(*COMPILE, f"-I{out / 'mock'}", *LIBRARY, _soname(main), *sources, "-o", bindings / main)
    for name in names - {main}:  # the mock has the parser's factories too
        _run(*COMPILE, *LIBRARY, _soname(name), "-x", "c++", "/dev/null", "-o", bindings / name)
    (out / "tensorrt").mkdir()
    (out / "tensorrt" / "__init__.py").write_text(PACKAGE)
    return out


def wheel(version: str) -> Wheel:
    """Return the pinned wheel of a version."""
    if version not in WHEELS:
        raise ValueError(f"no bindings of TensorRT {version}: expected {', '.join(WHEELS)}")
    return WHEELS[version]


def with_header(version: str, place: Path) -> None:
    """Write interfaces.h of a version into `place`."""
    place.mkdir(parents=True)
    (place / "interfaces.h").write_text(header(version))


def needed(module: Path) -> set[str]:
    """Return the names of NVIDIA's libraries that a module is linked with."""
    return set(NEEDED.findall(_run("readelf", "-d", module)))


def _soname(name: str) -> str:
    return f"-Wl,-soname,{name}"


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--version", required=True, choices=WHEELS)
    parser.add_argument("--python", default=PYTHON)
    arguments = parser.parse_args()
    print(make(arguments.version, arguments.out, python=arguments.python))


if __name__ == "__main__":
    main()
