"""The plugin's kernels on the CUDA driver, through ctypes: engines run without a CUDA package.

Kernels are loaded once per context (`Driver.kernels`). `Driver.launch` only records a launch on a
stream: it allocates nothing and waits for nothing, so it may be captured into a CUDA graph.
"""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.cuda.libcuda import LIBRARY, Libcuda
from finedge.runtime.trt.plugin.image import FOLDER, Image, image_for
from finedge.runtime.trt.plugin.launch import DECOMPOSED, AttentionShape, Kernel

log = logging.getLogger(__name__)

# From cuda.h.
MULTIPROCESSORS, SHARED_OPTIN = 16, 97
FUNCTION_SHARED = 8
SHARED_WITHOUT_ASKING = 48 * 1024
OCCUPANCY = "cuOccupancyMaxActiveBlocksPerMultiprocessor"
# The blocks that are assumed, at most, where the driver lacks that function.
USUAL_RESIDENT = 2


class Driver(Libcuda):
    """libcuda with the plugin's kernels.

    Args:
        library: the name or path of the library.
        folder: where the kernels' images are.

    Raises:
        DriverError: there is no driver, no device, or the driver is older than CUDA 12.
    """

    fix = f"if it happens again, {DECOMPOSED}"

    def __init__(self, library: str = LIBRARY, *, folder: Path = FOLDER) -> None:
        super().__init__(library)
        self._launch = _launcher(self._cuda)
        self._folder = folder
        self._kernels: dict[int, Kernels] = {}

    def kernels(self) -> Kernels:
        """Return the kernels, which are loaded once into the calling thread's context.

        Raises:
            SystemProblem: no image fits the device, or the driver refuses it.
        """
        context = self.context
        if context not in self._kernels:
            image = image_for(self.capability, driver=self.version, folder=self._folder)
            self._kernels[context] = Kernels(
                self,
                image,
                self._load(image),
                self.attribute(MULTIPROCESSORS),
                self.attribute(SHARED_OPTIN),
            )
        return self._kernels[context]

    def resident(self, function: ctypes.c_void_p, *, threads: int, shared_bytes: int) -> int | None:
        """Return how many blocks of a kernel fit a multiprocessor of the current device.

        `shared_bytes` are of one block. None where the driver lacks that function.
        """
        if not hasattr(self._cuda, OCCUPANCY):
            return None
        blocks, dynamic = ctypes.c_int(), ctypes.c_size_t(shared_bytes)
        self.call(OCCUPANCY, ctypes.byref(blocks), function, threads, dynamic)
        return blocks.value

    def launch(
        self, function: ctypes.c_void_p, *numbers: int, stream: int, parameters: Any
    ) -> None:
        """Record a launch; `numbers` are the grid, the block and the shared bytes."""
        self.check(self._launch(function, *numbers, stream, parameters, None), "cuLaunchKernel")

    def _load(self, image: Image) -> ctypes.c_void_p:
        module = ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), image.read())
        return module


@dataclass
class Kernels:
    """The kernels in one context.

    The GPU has `processors` multiprocessors and `shared_optin` bytes of shared memory per block.
    """

    driver: Driver
    image: Image
    module: ctypes.c_void_p
    processors: int
    shared_optin: int
    _functions: dict[str, ctypes.c_void_p] = field(default_factory=dict)
    _resident: dict[str, int] = field(default_factory=dict)

    def function(self, name: str, *, shared_bytes: int) -> ctypes.c_void_p:
        """Return a kernel that may be launched with that much dynamic shared memory.

        Raises:
            SystemProblem: the device has less shared memory per block.
        """
        if shared_bytes > self.shared_optin:
            raise SystemProblem(
                f"kernel {name} takes {shared_bytes} bytes of shared memory",
                expected=f"at most {self.shared_optin} here",
                fix=DECOMPOSED,
            )
        if name not in self._functions:
            handle = ctypes.c_void_p()
            self.driver.call(
                "cuModuleGetFunction", ctypes.byref(handle), self.module, name.encode()
            )
            if shared_bytes > SHARED_WITHOUT_ASKING:
                self.driver.call("cuFuncSetAttribute", handle, FUNCTION_SHARED, shared_bytes)
            self._functions[name] = handle
        return self._functions[name]

    def resident(self, kernel: Kernel) -> int:
        """Return how many blocks of a kernel fit a multiprocessor; the driver is asked once.

        Raises:
            SystemProblem: the device has too little shared memory per block.
        """
        if kernel.name not in self._resident:
            function = self.function(kernel.name, shared_bytes=kernel.shared_bytes)
            blocks = self.driver.resident(
                function, threads=kernel.threads, shared_bytes=kernel.shared_bytes
            )
            if blocks is None:
                blocks = min(kernel.resident, USUAL_RESIDENT)
                log.warning(
                    "the CUDA driver has no %s; %d blocks of %s a multiprocessor are assumed",
                    OCCUPANCY,
                    blocks,
                    kernel.name,
                )
            self._resident[kernel.name] = max(1, blocks)
        return self._resident[kernel.name]


def parameters_of(shape: AttentionShape) -> Any:
    """Return the parameter list of a launch; it is read when the launch is recorded.

    It points at `shape`, which must outlive it.
    """
    return (ctypes.c_void_p * 1)(ctypes.addressof(shape))


def _launcher(cuda: ctypes.CDLL) -> Any:
    launch = cuda.cuLaunchKernel
    launch.argtypes = [
        ctypes.c_void_p,
        *[ctypes.c_uint] * 7,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    launch.restype = ctypes.c_int
    return launch
