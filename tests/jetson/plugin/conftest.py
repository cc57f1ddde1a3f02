"""The C++ plugin, compiled for this machine and for a Jetson.

A harness calls it; its kernels run on the CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SOURCE = ROOT / "jetson" / "plugin"
STANDIN = HERE / "NvInfer_standin.h"
HOST = ROOT / "tests" / "runtime" / "trt" / "plugin" / "host"
KERNEL = ROOT / "runtime" / "trt" / "plugin" / "kernels" / "cross_layer_attention.cu"
TYPES = {"FLOAT": 0, "HALF": 1, "INT8": 2}
FORMATS = {"LINEAR": 0, "HWC8": 2, "CHW32": 5, "HWC": 8}


@dataclass(frozen=True)
class Toolchain:
    """A compiler and what runs its programs here."""

    compiler: str
    prefix: str = ""
    runner: tuple[str, ...] = ()

    def tool(self, name):
        return f"{self.prefix}{name}"

    def need(self):
        """Skip unless everything is installed."""
        missing = [
            t
            for t in (self.compiler, "cmake", self.tool("readelf"), *self.runner[:1])
            if not shutil.which(t)
        ]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)} (make setup-system)")


HERE_CPU = Toolchain("g++")
JETSON = Toolchain(
    "aarch64-linux-gnu-g++", "aarch64-linux-gnu-", ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
)


def run(*command, **options):
    process = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, **options
    )
    assert process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
    return process


@dataclass(frozen=True)
class PluginBuild:
    """The libraries of one toolchain, the harness, and a folder `driver`.

    The libcuda.so.1 in that folder runs the kernels on the CPU.
    """

    toolchain: Toolchain
    folder: Path

    @property
    def plugin(self):
        return self.folder / "libfinedge_plugin.so"

    @property
    def autoload(self):
        return self.folder / "libfinedge_plugin_autoload.so"

    def start(self, *arguments, **settings):
        """Run the harness.

        `settings` are environment variables of the harness, not of the emulator that runs it.
        """
        runner = self.toolchain.runner
        emulated = (
            [part for k, v in settings.items() for part in ("-E", f"{k}={v}")] if runner else []
        )
        environment = os.environ if runner else {**os.environ, **settings}
        return subprocess.run(
            [*runner, *emulated, self.folder / "harness", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    def walk(self, case, *, driver=True, **settings):
        """Take the plugin through a case; return its answers and its log.

        Without `driver` there is no libcuda.
        """
        search = {"LD_LIBRARY_PATH": str(self.folder / "driver")} if driver else {}
        process = self.start(self.plugin, case, **search, **settings)
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout), process.stderr


def build(toolchain, folder):
    """Compile the plugin as its users do, but against the stand-in header."""
    toolchain.need()
    cross = (
        ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
        if toolchain.runner
        else []
    )
    options = [f"-DCMAKE_CXX_COMPILER={toolchain.compiler}", f"-DFINEDGE_STANDIN_HEADER={STANDIN}"]
    run("cmake", "-S", SOURCE, "-B", folder, "-DCMAKE_CXX_FLAGS=-Werror", *options, *cross)
    run("cmake", "--build", folder)
    compiler, flags = toolchain.compiler, ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    run(
        compiler,
        *flags,
        f"-I{folder}/standin",
        "-rdynamic",
        HERE / "harness.cpp",
        "-ldl",
        "-o",
        folder / "harness",
    )
    build_driver(toolchain, folder / "driver")
    return PluginBuild(toolchain, folder)


def build_driver(toolchain, folder, *flags):
    """Compile the stand-in for libcuda into a new folder."""
    folder.mkdir()
    options = ["-std=c++17", "-O1", "-shared", "-fPIC", *flags]
    standin = [f'-DKERNEL_FILE="{KERNEL}"', f"-I{HOST}", HOST / "standin_cuda.cpp"]
    run(toolchain.compiler, *options, *standin, "-o", folder / "libcuda.so.1")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    return build(HERE_CPU, tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="session")
def cross_built(tmp_path_factory):
    return build(JETSON, tmp_path_factory.mktemp("plugin_aarch64"))


@dataclass(frozen=True)
class Tensor:
    """A map as TensorRT gives it to a plugin."""

    values: np.ndarray  # float16 or int8, [B, C, H, W]
    form: str
    step: float = 0.0

    @property
    def real(self):
        """Its values, float64; INT8 times its step is rounded to float16, as in the kernel."""
        steps = np.float32(self.step) if self.values.dtype == np.int8 else np.float16(1)
        return (self.values * steps).astype(np.float16).astype(np.float64)

    def line(self, name):
        kind = "INT8" if self.values.dtype == np.int8 else "HALF"
        return f"{name} {' '.join(map(str, self.values.shape))} {TYPES[kind]} {FORMATS[self.form]}"

    def memory(self):
        """Return the bytes; the padding has values that a result would show."""
        group = {"HWC8": 8, "CHW32": 32}.get(self.form, 1)
        padding = -self.values.shape[1] % group
        padded = np.pad(self.values, ((0, 0), (0, padding), (0, 0), (0, 0)), constant_values=99)
        if self.form in ("HWC8", "HWC"):
            padded = padded.transpose(0, 2, 3, 1)
        elif self.form == "CHW32":
            batch, channels, height, width = padded.shape
            padded = padded.reshape(batch, channels // 32, 32, height, width).transpose(
                0, 1, 3, 4, 2
            )
        return np.ascontiguousarray(padded).tobytes()


def read_output(path, *, shape, form):
    """Read a float16 map [B, C, H, W] as it lies in memory."""
    batch, channels, height, width = shape
    flat = np.fromfile(path, np.float16)
    if form in ("HWC8", "HWC"):
        return (
            flat.reshape(batch, height, width, -1)
            .transpose(0, 3, 1, 2)[:, :channels]
            .astype(np.float64)
        )
    return flat.reshape(shape).astype(np.float64)
