"""finedge: fine-grained image classification, from training to the camera."""

__version__ = "0.1.0"
