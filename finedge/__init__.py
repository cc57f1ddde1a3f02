"""finedge: fine-grained image classification, from training to the camera.

The names below are loaded at first use, so that `import finedge` stays cheap.

Examples:
    >>> from finedge import Classifier, open_source
    >>> with open_source("test://") as scene:
    ...     frame = next(iter(scene))
    >>> frame.image.shape, frame.image.dtype.name
    ((480, 640, 3), 'uint8')
    >>> with Classifier.open("examples/birds.finedge", variant="fp32") as classifier:
    ...     (prediction,) = classifier([frame.image])
    >>> prediction.top[0].label
    'fork-tailed-martin'
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finedge.bundle import Bundle
    from finedge.image import read_image
    from finedge.runtime.classifier import Classifier
    from finedge.runtime.sources import open_source

__all__ = ["Bundle", "Classifier", "__version__", "open_source", "read_image"]
__version__ = "0.1.0"

# The wheels of ONNX Runtime for Linux (1.31) send reports to their maker. They hold each process
# and its path, the sessions, and a device number that is kept in the home folder. Nobody who points
# a camera at something agreed to that. The library reads the variable when it is loaded, so it is
# set here. Set it to 0 to allow the reports.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Bundle": "finedge.bundle",
    "Classifier": "finedge.runtime.classifier",
    "open_source": "finedge.runtime.sources",
    "read_image": "finedge.image",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'finedge' has no attribute '{name}'")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
