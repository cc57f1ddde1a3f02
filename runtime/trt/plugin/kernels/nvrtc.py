"""NVIDIA's runtime compiler (NVRTC) through ctypes.

It needs two wheels, and no GPU, driver or toolkit.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finedge.errors import FinedgeError, SystemProblem

WHEELS = "nvidia-cuda-nvrtc-cu12==12.6.85 nvidia-cuda-runtime-cu12==12.6.77"


class CompileError(FinedgeError):
    """The kernel does not compile; the text holds the compiler's log."""


@dataclass(frozen=True)
class Usage:
    """The registers of a thread of a compiled kernel, and the bytes of its stack and spills."""

    registers: int
    stack: int
    spills: int


@dataclass(frozen=True)
class CompiledKernel:
    """An image and, where it is machine code, the usage of each kernel."""

    image: bytes
    usage: dict[str, Usage]


@dataclass(frozen=True)
class Nvrtc:
    """A copy of NVRTC: the shared library and the folder that has `cuda_fp16.h`."""

    library: Path
    include: Path

    @classmethod
    def of_cuda_12(cls) -> Nvrtc:
        """Return the NVRTC of the CUDA 12.6 wheels.

        Drivers of CUDA 12.6 read its output; CUDA 13 makes cubins that they do not load.

        Raises:
            SystemProblem: a wheel is missing, or is of another version.
        """
        nvrtc = cls(
            wheel_folder("cuda_nvrtc") / "lib/libnvrtc.so.12",
            wheel_folder("cuda_runtime") / "include",
        )
        if nvrtc.version != (12, 6):
            raise SystemProblem(
                f"NVRTC {'.'.join(map(str, nvrtc.version))}",
                expected="12.6, for images that JetPack 6 loads",
                fix=f"pip install {WHEELS}",
            )
        return nvrtc

    @property
    def version(self) -> tuple[int, int]:
        """The CUDA version: (12, 6)."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._load().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def compile(self, source: Path, *, target: str) -> CompiledKernel:
        """Compile a .cu file for `target`: `compute_80` makes PTX, `sm_87` machine code.

        Raises:
            CompileError: the compiler refused the source or the target.
        """
        nvrtc, program = self._load(), ctypes.c_void_p()
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None
        )
        try:
            status = self._run(
                nvrtc,
                program,
                (
                    f"--gpu-architecture={target}",
                    "-std=c++17",
                    f"-I{self.include}",
                    "--ptxas-options=-v",
                ),
            )
            log = _text(nvrtc, program, "ProgramLog")
            if status:
                compiler = f"NVRTC {self.version}"
                raise CompileError(
                    f"{source.name} does not compile for {target} with {compiler}:\n{log.decode()}"
                )
            image = _text(nvrtc, program, "PTX" if target.startswith("compute") else "CUBIN")
        finally:
            nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        return CompiledKernel(image, usage(log.decode()))

    def _load(self) -> ctypes.CDLL:
        try:
            return ctypes.CDLL(str(self.library))
        except OSError as error:
            raise SystemProblem(
                f"cannot load NVRTC: {error}",
                expected=str(self.library),
                fix=f"pip install {WHEELS}",
            ) from error

    @staticmethod
    def _run(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, options: Sequence[str]) -> int:
        array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        status: int = nvrtc.nvrtcCompileProgram(program, len(options), array)
        return status


def usage(log: str) -> dict[str, Usage]:
    """Return the usage of each kernel from the assembler's report (`--ptxas-options=-v`)."""
    pattern = (
        r"entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers"
    )
    return {
        name: Usage(int(registers), int(stack), int(out) + int(back))
        for name, stack, out, back, registers in re.findall(pattern, log, re.DOTALL)
    }


def as_json(usages: dict[str, Usage]) -> dict[str, Any]:
    """Return usage as plain data."""
    return {name: asdict(kernel) for name, kernel in sorted(usages.items())}


def wheel_folder(name: str) -> Path:
    """Return the folder `nvidia/NAME` of an installed wheel.

    Raises:
        SystemProblem: it is not installed.
    """
    try:
        spec = importlib.util.find_spec(f"nvidia.{name}")
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise SystemProblem(
            f"no package nvidia.{name}",
            expected="CUDA 12.6's compiler and headers",
            fix=f"pip install {WHEELS}",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, kind: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{kind}")(program, buffer)
    return buffer.raw if kind == "CUBIN" else buffer.value
