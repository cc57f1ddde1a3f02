"""The mock of libnvinfer that the bindings of this process have loaded."""

from __future__ import annotations

import ctypes
from pathlib import Path

import tensorrt_bindings

library = ctypes.CDLL(str(next(Path(tensorrt_bindings.__file__).parent.glob("libnvinfer.so.*"))))
library.drive.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int] * 4
library.drive.argtypes += [ctypes.c_float, ctypes.c_void_p]
library.context_scratch.restype = library.context_address.restype = ctypes.c_void_p
library.context_batch.restype = library.context_scratch_size.restype = ctypes.c_long
library.context_address.argtypes = [ctypes.c_int, ctypes.c_char_p]
library.set_model.argtypes = [ctypes.c_char_p]
library.builder_calls.restype = ctypes.c_char_p
# What `library.create` takes: how the next runtime or builder is created.
GOOD, NOTHING, AFTER_AN_ERROR = range(3)
