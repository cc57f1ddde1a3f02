"""The CUDA driver itself, libcuda, through ctypes: no CUDA package is needed."""

from __future__ import annotations

import ctypes
from typing import Any

from finedge.errors import SystemProblem

LIBRARY = "libcuda.so.1"
# From cuda.h.
MAJOR, MINOR = 75, 76


class DriverError(SystemProblem):
    """The CUDA driver refused a call; the text has the call and the driver's message."""


class Libcuda:
    """libcuda, opened and initialised.

    Args:
        library: its name or path.

    Attributes:
        fix: what to do about a call that failed.

    Raises:
        DriverError: there is no driver, no device, or the driver is older than CUDA 12.
    """

    fix = "finedge doctor; after a fault of the GPU, restart"

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._cuda = ctypes.CDLL(library)
            self._context_id = self._cuda.cuCtxGetId  # CUDA 12.0
        except (OSError, AttributeError) as error:
            raise DriverError(
                f"no CUDA driver: {error}",
                expected="a driver for CUDA 12.0 or newer",
                fix="install NVIDIA's driver",
            ) from error
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            DriverError: it did not return 0.
        """
        self.check(getattr(self._cuda, name)(*arguments), name)

    def check(self, status: int, name: str) -> None:
        """Raise `DriverError` unless `status`, returned by the function `name`, is 0."""
        if status:
            error_name = self._message("cuGetErrorName", status)
            text = self._message("cuGetErrorString", status)
            raise DriverError(f"{name} failed with {status}: {error_name}: {text}", fix=self.fix)

    @property
    def version(self) -> int:
        """The CUDA version of the driver: 12060 for 12.6."""
        return self._integer("cuDriverGetVersion")

    @property
    def context(self) -> int:
        """The number of the calling thread's current context; no number is used twice."""
        number = ctypes.c_ulonglong()
        self.check(self._context_id(None, ctypes.byref(number)), "cuCtxGetId")
        return number.value

    def attribute(self, attribute: int) -> int:
        """Return an attribute of the current context's device."""
        return self._integer("cuDeviceGetAttribute", attribute, self._integer("cuCtxGetDevice"))

    @property
    def capability(self) -> int:
        """The compute capability of the current device: 87 for 8.7."""
        return 10 * self.attribute(MAJOR) + self.attribute(MINOR)

    @property
    def devices(self) -> int:
        """How many GPUs the driver offers."""
        return self._integer("cuDeviceGetCount")

    def device_name(self, device: int = 0) -> str:
        """Return the name of a GPU by its number."""
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, len(name), device)
        return name.value.decode(errors="replace")

    def _integer(self, name: str, *arguments: int) -> int:
        value = ctypes.c_int()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value

    def _message(self, function: str, status: int) -> str:
        text = ctypes.c_char_p()
        getattr(self._cuda, function)(status, ctypes.byref(text))
        return (text.value or b"unknown").decode()


def gpu_name(library: str = LIBRARY) -> str:
    """Return the name of CUDA's device 0.

    `library` is the driver's name or path.

    Raises:
        SystemProblem: there is no driver, or it offers no GPU.
    """
    driver = Libcuda(library)
    if not driver.devices:
        raise SystemProblem("CUDA's driver counts no GPU", fix="check CUDA_VISIBLE_DEVICES")
    return driver.device_name()


def driver_version(library: str = LIBRARY) -> int:
    """Return the newest CUDA that the driver supports: 12060 for 12.6; 0 without a driver.

    It initialises nothing, so it works with a driver of any age.
    """
    version = ctypes.c_int()
    try:
        ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value


def version_text(number: int) -> str:
    """Return "12.6" for CUDA's 12060."""
    return f"{number // 1000}.{number % 1000 // 10}"
