"""TensorRT plugins: the kernels' source and images, and the Python shell that launches them."""
