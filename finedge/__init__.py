"""finedge: fine-grained image classification, from training to the camera."""

import os

__version__ = "0.1.0"

# ONNX Runtime's wheels for Linux (1.31) report to their maker: each process and its path, sessions, and a device number kept in the home folder.
# Nobody who points a camera at something agreed to that. The variable is read when the library is loaded, hence here; set it to 0 to leave that on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
