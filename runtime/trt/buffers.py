"""Memory of a session: page-locked on the host, and on the device.

It is allocated once, for the largest batch.
"""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.runtime.cuda.binding import Cuda
from finedge.runtime.trt.engine import EngineTensor


@dataclass(frozen=True)
class Buffer:
    """Room for one tensor.

    Attributes:
        tensor: what it holds.
        host: [largest batch, ...], page-locked: copies to and from it run beside other work.
        host_address: where `host` begins.
        device_address: what TensorRT reads or writes.
        mapped: both addresses are the same memory, and nothing is copied.
    """

    tensor: EngineTensor
    host: NDArray[Any]
    host_address: int
    device_address: int
    mapped: bool


def allocate(
    tensor: EngineTensor, batch: int, *, cuda: Cuda, mapped: bool, stack: ExitStack
) -> Buffer:
    """Allocate room for `batch` rows; `stack` frees it.

    `mapped` is for GPUs that share the CPU's memory: the device gets another name for the host's
    pages. On other GPUs every access would cross the bus.

    Raises:
        OutOfDeviceMemory: there is not enough.
    """
    size, api = tensor.size(batch), cuda.api
    flag = api.cudaHostAllocMapped if mapped else api.cudaHostAllocDefault
    host = cuda.allocate("cudaHostAlloc", size, flag, size=size)
    stack.callback(cuda.release, "cudaFreeHost", host)
    if mapped:
        device = int(cuda("cudaHostGetDevicePointer", host, 0))
    else:
        device = device_memory(size, cuda=cuda, stack=stack)
    # Bytes first: ctypes has no float16.
    raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(host))
    return Buffer(tensor, raw.view(tensor.dtype).reshape(batch, *tensor.row), host, device, mapped)


def device_memory(size: int, *, cuda: Cuda, stack: ExitStack) -> int:
    """Allocate `size` bytes on the device (CUDA aligns them to 256 bytes); `stack` frees them."""
    pointer = cuda.allocate("cudaMalloc", size, size=size)
    stack.callback(cuda.release, "cudaFree", pointer)
    return pointer
