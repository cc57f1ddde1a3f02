"""The model of Triton's Python backend: files of images in, the answers of a bundle out.

`1/model.py` of the folder that `finedge serve-config triton` writes imports `TritonPythonModel`.
Triton's stub process calls `initialize`, `execute` and `finalize`, and brings the module
`triton_python_backend_utils` (triton-inference-server/python_backend, README.md).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.errors import BackendMissing, FinedgeError
from finedge.image import Unreadable
from finedge.image.decode import decode
from finedge.runtime.classifier import Classifier
from finedge.runtime.machine.cpu import owned_cores

UTILITIES = "triton_python_backend_utils"
BUNDLE = "bundle.finedge"  # beside model.py
IMAGE = "image"  # input: the bytes of an image file
LABEL, P, UNKNOWN, PROBABILITIES = "label", "p", "unknown", "probabilities"
VARIANT, BACKEND = "finedge.variant", "finedge.backend"  # parameters in config.pbtxt


class TritonPythonModel:
    """One instance of the model.

    A request has `image`, BYTES [B, 1]: files as JPEG or PNG. Its response has `label` BYTES
    [B, 1], `p` FP32 [B, 1], `unknown` BOOL [B, 1] and `probabilities` FP32 [B, classes], as
    `Classifier` gives them. A request with a file that is no whole picture gets an error; the
    others of its batch do not.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle beside model.py.

        Raises:
            BackendMissing: this build of Triton cannot pass arrays to the numpy that is installed.
        """
        self._triton = importlib.import_module(UTILITIES)
        _check_arrays(self._triton)
        parameters = json.loads(args["model_config"])["parameters"]
        self._classifier = Classifier.open(
            Path(args["model_repository"], args["model_version"], BUNDLE),
            variant=parameters[VARIANT]["string_value"],
            backend=parameters[BACKEND]["string_value"],
        )
        self._threads = ThreadPoolExecutor(owned_cores(), "finedge-prepare")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch; their pictures go through the model together.

        Pictures are decoded and preprocessed in a thread for each core.
        """
        files = [self._files(request) for request in requests]
        rows = list(self._threads.map(self._prepare, [file for group in files for file in group]))
        groups = [[rows.pop(0) for _ in group] for group in files]
        usable = [row for group in groups if _fault(group) is None for row in group]
        answers = iter(self._probabilities(usable))
        return [self._response(group, answers) for group in groups]

    def finalize(self) -> None:
        """Free the model."""
        self._threads.shutdown()
        self._classifier.close()

    def _files(self, request: Any) -> list[bytes]:
        tensor = self._triton.get_input_tensor_by_name(request, IMAGE)
        return list(tensor.as_numpy().reshape(-1))

    def _prepare(self, file: bytes) -> NDArray[np.uint8] | str:
        """Return the network's input, or why there is none."""
        try:
            pixels: NDArray[np.uint8] = self._classifier.prepare([decode(file).image])[0]
        except Unreadable as error:
            return f"the picture {error}"
        except FinedgeError as error:
            return error.what
        return pixels

    def _probabilities(self, rows: list[Any]) -> NDArray[np.floating]:
        if not rows:
            return np.zeros((0, len(self._classifier.bundle.spec.labels)), np.float32)
        return self._classifier.probabilities(self._classifier.scores(np.stack(rows)))

    def _response(self, group: list[Any], answers: Any) -> Any:
        fault = _fault(group)
        if fault is not None:
            return self._triton.InferenceResponse(error=self._triton.TritonError(fault))
        p = np.stack([next(answers) for _ in group])
        best = [top[0] for top in self._classifier.rank(p)]
        columns = {
            LABEL: np.array([[top.label.encode()] for top in best], np.object_),
            P: np.array([[top.p] for top in best], np.float32),
            UNKNOWN: np.array([[self._classifier.abstains(top.p)] for top in best], np.bool_),
            PROBABILITIES: p.astype(np.float32),
        }
        tensors = [self._triton.Tensor(name, values) for name, values in columns.items()]
        return self._triton.InferenceResponse(output_tensors=tensors)


def _check_arrays(triton: Any) -> None:
    """Refuse a stub process that was built for numpy 1 and runs with numpy 2.

    It reads a wrong field for the size of an element, so every array that it makes repeats its
    first byte. That was seen with tritonserver 2.51.0 and numpy 2.4.6.
    """
    if int(np.__version__.partition(".")[0]) < 2:
        return
    sent = np.arange(8, dtype=np.uint8)
    if np.array_equal(triton.Tensor.from_dlpack("check", sent).as_numpy(), sent):
        return
    raise BackendMissing(
        f"this build of Triton's Python backend cannot read arrays of numpy {np.__version__}",
        expected="a build for this version of numpy",
        fix="pip install 'numpy<2' in the Python of Triton's Python backend, or a newer Triton",
    )


def _fault(group: list[Any]) -> str | None:
    """Return the first fault of a request's pictures, or None."""
    return next((row for row in group if isinstance(row, str)), None)
