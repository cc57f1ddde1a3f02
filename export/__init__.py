"""From a run to a bundle: ONNX with custom ops, graph passes, parity, the torch reference backend."""
