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
# Bytes 7 and 8 of a cubin: assemblers of CUDA 12 and before write the first. The second is called for by drivers of CUDA 13 on.
OLD_ABI, NEW_ABI = b"\x33\x07", b"\x41\x08"


@dataclass(frozen=True)
class Image:
    """One file of `FOLDER`: machine code for one architecture (cubin), or PTX that the driver compiles for any from `architecture` on.

    `architecture` is 87 for compute capability 8.7; `driver` is the least CUDA version of the driver, 12060 for 12.6.
    """

    path: Path
    architecture: int
    driver: int

    @property
    def is_ptx(self) -> bool:
        """Whether the driver has to compile it."""
        return self.path.suffix == ".ptx"

    def read(self) -> bytes:
        """Return what `cuModuleLoadData` takes: PTX is text and ends with a zero byte."""
        return self.path.read_bytes() + (b"\0" if self.is_ptx else b"")

    def runs_on(self, capability: int, *, driver: int) -> bool:
        """Tell whether a device of that compute capability and driver can load it."""
        fits = self.architecture <= capability if self.is_ptx else self.architecture == capability
        return fits and self.driver <= driver


def images(folder: Path = FOLDER) -> tuple[Image, ...]:
    """Return the images of a folder, named `NAME.sm_XX.cubin` or `.ptx`; cubins come first."""
    found = [
        (path, re.search(r"\.sm_(\d+)\.(cubin|ptx)$", path.name))
        for path in sorted(folder.iterdir())
    ]
    return tuple(Image(path, int(match[1]), _driver(path)) for path, match in found if match)


def image_for(capability: int, *, driver: int, folder: Path = FOLDER) -> Image:
    """Return the image to load: machine code made for exactly that device, else PTX.

    Machine code of a neighbouring architecture is left alone although some of it would load: nobody chose its tiles for that device.

    Args:
        capability: 87 for compute capability 8.7.
        driver: the CUDA version of the driver, 12060 for 12.6 (`cuDriverGetVersion`).
        folder: where the images are.

    Raises:
        SystemProblem: none fits.
    """
    known = images(folder)
    fitting = [image for image in known if image.runs_on(capability, driver=driver)]
    if fitting:
        return min(fitting, key=lambda image: (image.is_ptx, -image.architecture))
    what = f"no image of the attention kernel loads on compute capability {capability / 10} with a driver for CUDA {_spelt(driver)}"
    raise SystemProblem(
        what, expected=_spelt_images(known), fix=f"update the driver, or {DECOMPOSED}"
    )


def image_digest(folder: Path = FOLDER) -> str:
    """Return one sha256 over the names and bytes of all images: the plugin's part of an engine's key."""
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
    assert match, f"{path} is no PTX"
    return _cuda_of_isa(int(match[1]), int(match[2]))


def _cuda_of_isa(major: int, minor: int) -> int:
    """Return the CUDA version that first read that PTX: 8.x came with 12.x, but 12.5 and 12.6 share 8.5."""
    step = minor if (major, minor) <= (8, 5) else minor + 1 if major == 8 else minor
    return (major + 4) * 1000 + step * 10


def _spelt(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _spelt_images(known: Iterable[Image]) -> str:
    return ", or ".join(
        f"{i.architecture / 10}{' or newer' if i.is_ptx else ''} with CUDA >= {_spelt(i.driver)}"
        for i in known
    )
