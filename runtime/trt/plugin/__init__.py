"""The TensorRT plugin of cross-layer attention: kernels, images, and the Python that launches them.

`cross_layer_attention` is the plugin as TensorRT calls it, with the `attributes` of its node;
`register` hands it to TensorRT. A `ready_attention` has a plan (`launch`) and an `image` that the
CUDA `driver` loaded, and records launches. `node_attributes` writes into the ONNX nodes what
TensorRT does not pass to a plugin; `link` is a condition of TensorRT for RTX. `kernels` holds the
CUDA source and compiles it to `images`.

The room imports `finedge.ops`, `finedge.errors`, `finedge.files` and `finedge.runtime.cuda` only.
`finedge.runtime.trt` registers the plugin where an engine that contains it is built or opened;
`doctor`, the C++ plugin's tests and the GPU benchmark use `image`, `launch` and `driver`.
"""
