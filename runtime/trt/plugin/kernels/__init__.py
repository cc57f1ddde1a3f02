"""The CUDA source of the attention kernel, and the program that compiles the shipped images."""
