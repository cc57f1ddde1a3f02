"""Compile the kernel's images that ship with the package.

Run `python -m finedge.runtime.trt.plugin.kernels.make [--check]`, or `make kernels`.

The driver of every later GPU compiles the PTX for sm_80; machine code for sm_87 (Orin) saves the
board that work. Both come from NVRTC 12.6: a driver reads no PTX that is newer than itself, and
drivers of CUDA 12 do not load machine code of CUDA 13. The same source gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from finedge.errors import FinedgeError
from finedge.files import write_bytes
from finedge.runtime.trt.plugin.image import FOLDER
from finedge.runtime.trt.plugin.kernels.nvrtc import Nvrtc, as_json
from finedge.runtime.trt.plugin.launch import SEPARATE, SHARED

SOURCE = Path(__file__).parent / "cross_layer_attention.cu"
TARGETS = {f"{SOURCE.stem}.sm_80.ptx": "compute_80", f"{SOURCE.stem}.sm_87.cubin": "sm_87"}
RECORD = "images.json"


def build() -> dict[str, bytes]:
    """Return file name and bytes of each image and of the record about them.

    Raises:
        SystemProblem: the wheels of CUDA 12.6 are missing; the text says what to install.
        CompileError: the source does not compile.
    """
    nvrtc = Nvrtc.of_cuda_12()
    compiled = {name: nvrtc.compile(SOURCE, target=target) for name, target in TARGETS.items()}
    kernels = as_json(compiled[f"{SOURCE.stem}.sm_87.cubin"].usage)
    dynamic = {kernel.name: kernel.shared_bytes for kernel in (*SEPARATE, *SHARED)}
    for name, usage in kernels.items():
        usage["shared"] = dynamic.get(name, 0)
    record = {
        "schema": 1,
        "source": {SOURCE.name: _sha256(SOURCE.read_bytes())},
        "nvrtc": list(nvrtc.version),
        "images": {name: _sha256(kernel.image) for name, kernel in compiled.items()},
        "sm_87": kernels,
    }
    files = {name: kernel.image for name, kernel in compiled.items()}
    return {**files, RECORD: (json.dumps(record, indent=1) + "\n").encode()}


def differing(files: dict[str, bytes], *, folder: Path = FOLDER) -> list[str]:
    """Return the names of the files that `folder` lacks or has with other bytes."""
    return [
        name
        for name, data in files.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != data
    ]


def make(*, check: bool, folder: Path = FOLDER) -> dict[str, int]:
    """Write the images, or with `check` only compare; return the size in bytes of each file.

    Raises:
        FinedgeError: with `check`, a file is not what the source makes.
    """
    files = build()
    stale = differing(files, folder=folder)
    if check and stale:
        raise FinedgeError(
            f"{', '.join(stale)} in {folder}",
            expected="what the source makes",
            fix="make kernels, and commit the images",
        )
    for name in stale:
        write_bytes(folder / name, files[name])
    return {name: len(data) for name, data in files.items()}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="make kernels", description="compile the attention kernel to the images that ship"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare only; exit code 1 if a committed image is stale",
    )
    try:
        print(json.dumps(make(check=parser.parse_args().check)))
    except FinedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
