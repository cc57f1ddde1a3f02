"""TensorRT and TensorRT for RTX: one code path that runs a bundle's engine on the GPU."""

from finedge.runtime.trt.backend import RtxBackend, TensorRtBackend
from finedge.runtime.trt.session import TensorRtSession

__all__ = ["RtxBackend", "TensorRtBackend", "TensorRtSession"]
