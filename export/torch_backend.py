"""The `torch` backend: the run itself, in PyTorch, with the same protocol as every device.

It is the reference of `verify`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.data import Item
from finedge.errors import BundleError
from finedge.graph.onnx_file import read_model
from finedge.runtime.backend import SessionInfo
from finedge.runtime.model_io import check_scores
from finedge.spec import Spec

if TYPE_CHECKING:
    from torch import nn


class TorchBackend:
    """Runs the run folder named in the bundle's `train` record (float32 only)."""

    name = "torch"
    usual_variants = ("fp32",)

    def why_not(self) -> str | None:
        """Return why it cannot run here."""
        missing = [
            p for p in ("torch", "timm", "safetensors") if importlib.util.find_spec(p) is None
        ]
        return f"needs {', '.join(missing)}: pip install 'finedge[train]'" if missing else None

    def open(self, bundle: Bundle, *, variant: str = "fp32") -> TorchSession:
        """Load the run; only `fp32` exists in PyTorch."""
        if variant != "fp32":
            raise BundleError(f"the torch backend has no variant '{variant}'", expected="fp32")
        return TorchSession(bundle, taps=False)

    def open_with_taps(self, bundle: Bundle) -> TorchSession:
        """As `open`, with `tap/NAME` beside the outputs."""
        return TorchSession(bundle, taps=True)

    def pixels(self, bundle: Bundle, paths: Sequence[Path]) -> NDArray[np.uint8]:
        """Return image files as the run's validation preprocesses them.

        uint8 [N, H, W, 3], before normalisation.
        """
        from finedge.train.loader import EvaluationImages
        from finedge.train.run import read_record

        spec = Spec.from_json(read_record(_run_of(bundle))["spec"])
        preprocess = replace(spec.preprocess, frame=bundle.spec.preprocess.frame)
        images = EvaluationImages([Item(path, 0) for path in paths], preprocess)
        return np.stack([images[i][0] for i in range(len(images))])


def _run_of(bundle: Bundle) -> Path:
    run = bundle.training.run
    if run is None:
        raise BundleError(
            f"{bundle.path} names no run",
            expected="the run it was exported from",
            fix="finedge verify BUNDLE --run RUN",
        )
    return Path(run)


class TorchSession:
    """One loaded run; it gets the crops of the bundle's graph where that takes whole frames."""

    def __init__(self, bundle: Bundle, *, taps: bool) -> None:
        import torch

        from finedge.export.reference import FramedReference
        from finedge.export.to_onnx import FramesToOutputs
        from finedge.train.run import load_run

        run = _run_of(bundle)
        loaded = load_run(run)
        graph = FramesToOutputs(loaded.model, loaded.spec.preprocess).eval()
        self._spec = bundle.spec
        self._graph: nn.Module = graph
        if bundle.spec.preprocess.frame is not None:
            self._graph = FramedReference(graph, read_model(bundle.file(FLOAT_FILE)))
        self._names = [o.name for o in loaded.model.outputs]
        if taps:
            self._names += [f"tap/{t}" for t in loaded.model.taps]
        self.info = SessionInfo("torch", "cpu", str(run), "fp32", {"torch": torch.__version__})

    def __call__(self, batch: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Take uint8 [B, H, W, 3]; return float32 outputs by name."""
        import torch

        with torch.no_grad():
            results: Any = self._graph(torch.from_numpy(np.ascontiguousarray(batch)))
        answers = {name: t.numpy() for name, t in zip(self._names, results, strict=False)}
        check_scores(answers, self._spec, rows=len(batch), file=self.info.file)
        return answers

    def own_errors(self, batch: NDArray[np.uint8]) -> dict[str, float]:
        """Return the largest error of float32 here, against float64, by name."""
        from finedge.export.parity import expected_of

        expected = expected_of(self._graph, batch, outputs=len(self._names))
        return dict(zip(self._names, expected.own_errors, strict=True))

    def close(self) -> None:
        """Nothing to free."""
