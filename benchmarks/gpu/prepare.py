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
`bindings`. It prints sizes. It exits with 1 where a piece could not be made, or where the folder
and the checkout together are too large for such a machine.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.carried import FOLDER  # noqa: E402
from benchmarks.gpu.pieces import PIECES, Missing  # noqa: E402
from finedge.errors import FinedgeError  # noqa: E402

MOST = 64 << 20  # bytes: the checkout and the folder
FILES = {"counts": "counts.jsonl"}  # a piece that is one file


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


if __name__ == "__main__":
    sys.exit(main())
