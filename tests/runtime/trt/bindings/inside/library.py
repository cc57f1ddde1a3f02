"""The mock of libnvinfer that the bindings of this process have loaded."""

from __future__ import annotations

import ctypes
from pathlib import Path

import tensorrt_bindings

library = ctypes.CDLL(str(next(Path(tensorrt_bindings.__file__).parent.glob("libnvinfer.so.*"))))
library.drive.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int] * 4
library.drive.argtypes += [ctypes.c_float, ctypes.c_void_p]
