"""CUDA, for every room that asks for an NVIDIA GPU.

`binding.py` is CUDA's runtime API with every status checked, `gpu.py` the GPU that work goes to,
and `libcuda.py` the driver itself, which needs no package.
"""
