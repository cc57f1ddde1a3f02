"""From a float model and a table to Q/DQ nodes: for TensorRT, and for ONNX Runtime."""
