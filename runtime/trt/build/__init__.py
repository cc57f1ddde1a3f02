"""TensorRT engines of a bundle: chosen, built, kept beside everything they depend on, and never used when stale."""
