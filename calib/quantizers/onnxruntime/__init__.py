"""INT8 for CPUs: the file that ONNX Runtime runs.

`quantizer` places the Q/DQ nodes, `attention` writes attention with INT8 products, and `input`
lets the first convolution read the grey levels of the frame.
"""

from finedge.calib.quantizers.onnxruntime.quantizer import quantize_for_onnxruntime

__all__ = ["quantize_for_onnxruntime"]
