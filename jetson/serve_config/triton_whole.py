"""The folder with which Triton serves a bundle whole: image files in, answers out.

    OUT/birds_fp32_images/config.pbtxt  labels.txt  README.md  1/model.py  1/bundle.finedge/

The model is `python_backend.py`, which Triton's Python backend runs. So preprocessing, temperature
and threshold are those of the bundle, and the client needs nothing of finedge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finedge import __version__
from finedge.bundle import MANIFEST, Bundle
from finedge.jetson.serve_config.folder import ServeFolder, one_line
from finedge.jetson.serve_config.pbtxt import EnumName, text
from finedge.jetson.serve_config.python_backend import (
    BACKEND,
    BUNDLE,
    IMAGE,
    LABEL,
    PROBABILITIES,
    UNKNOWN,
    VARIANT,
    P,
)

LABELS = "labels.txt"
QUEUE_DELAY_US = 2000  # a picture waits so long for others, as in `finedge serve`
MODEL = '''"""Serves the bundle beside this file; `finedge serve-config triton` wrote it."""

from finedge.jetson.serve_config.python_backend import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
NOTES = (
    "The Python that Triton's Python backend runs, the first in PATH, needs finedge: "
    f"`pip install finedge=={__version__}` there. Triton ignores PYTHONPATH.",
    "A picture of a wrong format is an error of its request only.",
)


def whole_folder(bundle: Bundle, name: str, *, variant: str, batch: int) -> ServeFolder:
    """Return the folder of a bundle; every file of the bundle is copied."""
    files: dict[str, bytes | Path] = {
        "config.pbtxt": text(_config(bundle, name, variant=variant, batch=batch)).encode(),
        LABELS: "".join(f"{one_line(label)}\n" for label in bundle.spec.labels).encode(),
        "1/model.py": MODEL.encode(),
    }
    for path in _bundle_files(bundle):
        files[f"1/{BUNDLE}/{path.relative_to(bundle.path).as_posix()}"] = path
    return ServeFolder(name, files, NOTES, _readme(bundle, name))


def _bundle_files(bundle: Bundle) -> list[Path]:
    """Return the manifest and the files that it names, not engines or reports beside them."""
    return [bundle.path / MANIFEST, *(bundle.path / name for name in bundle.files)]


def _config(bundle: Bundle, name: str, *, variant: str, batch: int) -> dict[str, Any]:
    def tensor(tensor_name: str, kind: str, size: int) -> dict[str, Any]:
        return {"name": tensor_name, "data_type": EnumName(kind), "dims": [size]}

    probabilities = tensor(PROBABILITIES, "TYPE_FP32", len(bundle.spec.labels))
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": batch,
        "input": [tensor(IMAGE, "TYPE_STRING", 1)],
        "output": [
            tensor(LABEL, "TYPE_STRING", 1),
            tensor(P, "TYPE_FP32", 1),
            tensor(UNKNOWN, "TYPE_BOOL", 1),
            probabilities | {"label_filename": LABELS},
        ],
        "dynamic_batching": {"max_queue_delay_microseconds": QUEUE_DELAY_US},
        "instance_group": [{"kind": EnumName("KIND_CPU"), "count": 1}],
        "parameters": [
            {"key": VARIANT, "value": {"string_value": variant}},
            {"key": BACKEND, "value": {"string_value": "auto"}},
        ],
    }


def _readme(bundle: Bundle, name: str) -> str:
    return f"""# {name}

{bundle.name} for Triton Inference Server, whole: the client sends the file of an image.
finedge's slow tests run such a folder in tritonserver on a CPU.

```
tritonserver --model-repository=THE_FOLDER_ABOVE
```

Input `{IMAGE}`: BYTES [B, 1], a JPEG, PNG or other image file. Outputs: `{LABEL}` BYTES [B, 1],
`{P}` FP32 [B, 1], `{UNKNOWN}` BOOL [B, 1], `{PROBABILITIES}` FP32 [B, {len(bundle.spec.labels)}].
"""
