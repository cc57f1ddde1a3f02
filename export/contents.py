"""What a bundle holds beside its models: golden outputs, the split, the record of the export."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from finedge import __version__
from finedge.bundle import FLOAT_FILE
from finedge.data.stored_split import FILE, with_digests
from finedge.export.cost import ModelCost
from finedge.export.parity import Parity
from finedge.export.passes import NAMES
from finedge.export.segments import NO_CUT, Cuts
from finedge.golden import synthetic_frame, tap_sample
from finedge.preprocess import preprocess
from finedge.spec import Spec
from finedge.train.run import Run, recorded_split

log = logging.getLogger(__name__)


def golden_arrays(
    reference: nn.Module, spec: Spec, *, taps: Sequence[str], files: Mapping[str, bytes]
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of golden.npz.

    They are the golden frame, its tensor, samples of the taps (PyTorch) and the outputs of the
    files (ONNX Runtime).
    """
    frame = synthetic_frame()
    pixels = preprocess(frame, spec.preprocess)
    with torch.no_grad():
        results = reference(torch.from_numpy(pixels[None]))
    arrays: dict[str, NDArray[np.generic]] = {"frame": frame, "input": pixels}
    for name, tensor in zip(taps, results[len(spec.outputs) :], strict=True):
        arrays[f"tap/{name}"] = tap_sample(tensor.numpy())
    for file, content in files.items():
        outputs = _run_onnx(content, {spec.input.name: pixels[None]})
        arrays |= {f"{file}/{name}": value for name, value in outputs.items()}
    return arrays


def _run_onnx(
    content: bytes, inputs: dict[str, NDArray[np.uint8]]
) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def stored_split(run: Run, data: Path | None) -> dict[str, bytes]:
    """Return the file of the run's split, by its name.

    A split without digests gets those of the images that exist here.
    """
    split = with_digests(recorded_split(run.path), data or Path(run.record["data"]["root"]))
    if not split.has_digests():
        log.warning(
            "%s holds no digests of its images, and not all are here: the bundle knows only a part",
            run.path,
        )
    return {FILE: split.packed()}


def export_record(
    run: Run,
    model: onnx.ModelProto,
    *,
    parities: Mapping[str, Parity],
    cost: ModelCost,
    frames: str,
    cuts: Cuts = NO_CUT,
) -> dict[str, Any]:
    """Return the provenance of a bundle: the records `train` and `export`, as plain data."""
    exported = {
        "parity": parities[FLOAT_FILE].to_json(),
        "parities": {name: parity.to_json() for name, parity in parities.items()},
        "frames": frames,
        "opset": model.opset_import[0].version,
        "ir": model.ir_version,
        "passes": list(NAMES),
        "attention_cost": cost.to_json(),
        **({"segments": cuts.to_json()} if cuts.files else {}),
        "versions": {
            "finedge": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }
    trained = {**run.record, "run": str(run.path.resolve())}
    record: dict[str, Any] = json.loads(json.dumps({"train": trained, "export": exported}))
    return record
