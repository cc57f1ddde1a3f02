"""The CUDA source of the attention kernel, and the program that compiles it to the images that ship."""
