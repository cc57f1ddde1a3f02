"""The INT8 peak of one core of this CPU, in multiply-accumulates per second: JSON on stdout.

    python -m benchmarks.cpu.int8_peak

`int8_peak.c` multiplies in registers, so nothing but the instruction limits it. It needs a C
compiler; without one there is no peak, and the reason is printed.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
ROUNDS = 2_000_000  # about 30 ms on a core with 512-bit VNNI at 4 GHz
FLAGS = ("-O2", "-march=native", "-shared", "-fPIC")


class NoPeak(Exception):
    """The peak cannot be measured here; the text says why."""


@dataclass(frozen=True)
class Int8Peak:
    """The compiled loop; `instruction` names what it multiplies with."""

    library: ctypes.CDLL
    instruction: str

    def gmacs(self) -> float:
        """Measure once: giga multiply-accumulates per second of this thread's CPU time."""
        macs: float = self.library.macs_per_second(ROUNDS)
        return macs / 1e9


def int8_peak() -> Int8Peak:
    """Compile the loop for this CPU.

    Raises:
        NoPeak: there is no C compiler, or none of the CPU's instructions is known.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoPeak("needs a C compiler")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8_peak.so"
        command = [compiler, *FLAGS, str(SOURCE), "-o", str(path)]
        compiled = subprocess.run(command, capture_output=True, text=True, check=False)
        if compiled.returncode:
            raise NoPeak(f"{compiler} fails: {compiled.stderr.strip()[-300:]}")
        library = ctypes.CDLL(str(path))  # stays loaded after the file is deleted
    library.macs_per_second.restype = ctypes.c_double
    library.macs_per_second.argtypes = [ctypes.c_int64]
    library.instruction.restype = ctypes.c_char_p
    return Int8Peak(library, library.instruction().decode())


if __name__ == "__main__":
    try:
        peak = int8_peak()
        print(json.dumps({"instruction": peak.instruction, "gmacs": round(peak.gmacs(), 1)}))
    except NoPeak as reason:
        print(json.dumps({"skipped": str(reason)}))
