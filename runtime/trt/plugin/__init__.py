"""The TensorRT plugin of cross-layer attention: kernels, images, and the Python that launches them.

`cross_layer_attention` is the plugin as TensorRT calls it. It plans a launch (`launch`), loads an
`image` through the CUDA `driver` and launches it. `node_attributes` writes into the ONNX nodes what
TensorRT does not pass to a plugin; `link` is a condition of TensorRT for RTX. `kernels` holds the
CUDA source and compiles it to `images`.

The room imports `finedge.ops`, `finedge.errors` and `finedge.files` only. `finedge.runtime.trt`
registers the plugin where an engine that contains it is built or opened; `doctor`, the C++ plugin's
tests and the GPU benchmark use `image`, `launch` and `driver`.
"""
