"""The ranges of a float model's tensors: images, collectors, and the calibration table."""
