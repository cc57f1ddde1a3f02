"""The compiled kernels that ship with the package, and which of them a device can load."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from finedge.errors import SystemProblem
from finedge.runtime.trt.plugin.launch import DECOMPOSED

FOLDER = Path(__file__).parent / "images"
# Bytes 7 and 8 of a cubin. Assemblers up to CUDA 12 write the first; the second needs a driver of
# CUDA 13 or newer.
OLD_ABI, NEW_ABI = b"\x33\x07", b"\x41\x08"


@dataclass(frozen=True)
class Image:
    """One file of `FOLDER`: machine code for one architecture (cubin), or PTX.

    PTX is compiled by the driver for any GPU from `architecture` on. `architecture` is 87 for
    compute capability 8.7; `driver` is the minimum CUDA version of the driver, 12060 for 12.6.
    """

    path: Path
    architecture: int
    driver: int

    @property
    def is_ptx(self) -> bool:
        """Whether the driver has to compile it."""
        return self.path.suffix == ".ptx"

    def read(self) -> bytes:
        """Return the bytes for `cuModuleLoadData`; PTX is text and ends with a zero byte."""
        return self.path.read_bytes() + (b"\0" if self.is_ptx else b"")

    def runs_on(self, capability: int, *, driver: int) -> bool:
        """Tell whether a device of that compute capability and driver can load it."""
        if self.driver > driver:
            return False
        return self.architecture <= capability if self.is_ptx else self.architecture == capability


def images(folder: Path = FOLDER) -> tuple[Image, ...]:
    """Return the images of a folder, named `NAME.sm_XX.cubin` or `.ptx`; cubins come first."""
    pattern = re.compile(r"\.sm_(\d+)\.(cubin|ptx)$")
    matches = [(path, pattern.search(path.name)) for path in sorted(folder.iterdir())]
    return tuple(Image(path, int(match[1]), _driver(path)) for path, match in matches if match)


def image_for(capability: int, *, driver: int, folder: Path = FOLDER) -> Image:
    """Return the image to load: machine code made for exactly that device, else PTX.

    Machine code of a similar architecture is not used, although some of it would load: its tiles
    were not chosen for that device.

    Args:
        capability: 87 for compute capability 8.7.
        driver: the CUDA version of the driver, 12060 for 12.6 (`cuDriverGetVersion`).
        folder: where the images are.

    Raises:
        SystemProblem: none fits.
    """
    candidates = images(folder)
    loadable = [image for image in candidates if image.runs_on(capability, driver=driver)]
    if loadable:
        return min(loadable, key=lambda image: (image.is_ptx, -image.architecture))
    device = f"compute capability {capability / 10} with a driver for CUDA {_version(driver)}"
    raise SystemProblem(
        f"no image of the attention kernel loads on {device}",
        expected=_requirements(candidates),
        fix=f"update the driver, or {DECOMPOSED}",
    )


def image_digest(folder: Path = FOLDER) -> str:
    """Return one sha256 over the names and bytes of all images, for an engine's key."""
    digests = [
        f"{image.path.name} {hashlib.sha256(image.path.read_bytes()).hexdigest()}"
        for image in images(folder)
    ]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _driver(path: Path) -> int:
    data = path.read_bytes()
    if path.suffix == ".cubin":
        return {OLD_ABI: 12000, NEW_ABI: 13000}[data[7:9]]
    match = re.search(rb"^\.version\s+(\d+)\.(\d+)", data, re.MULTILINE)
    assert match, f"{path} has no line .version of PTX"
    return _cuda_of_isa(int(match[1]), int(match[2]))


def _cuda_of_isa(major: int, minor: int) -> int:
    """Return the CUDA version that first read that PTX ISA.

    8.x came with 12.x, but 12.5 and 12.6 share 8.5.
    """
    step = minor + 1 if major == 8 and minor > 5 else minor
    return (major + 4) * 1000 + step * 10


def _version(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _requirements(candidates: Iterable[Image]) -> str:
    """Return which devices and drivers the images need."""

    def requirement(image: Image) -> str:
        newer = " or newer" if image.is_ptx else ""
        return f"{image.architecture / 10}{newer} with CUDA >= {_version(image.driver)}"

    return ", or ".join(map(requirement, candidates))
