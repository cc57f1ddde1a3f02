"""`finedge export`: a run becomes a bundle, once ONNX Runtime and PyTorch agree on real images."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from finedge.errors import UsageError

if TYPE_CHECKING:
    import onnx

    from finedge.export.parity import Parity
    from finedge.export.to_onnx import FramesToOutputs
    from finedge.train.run import Run

log = logging.getLogger(__name__)

PARITY_IMAGES = 8


def export(run: Positional[Path], *, out: Path, data: Path | None = None) -> dict[str, Any]:
    """Make a bundle of a run: ONNX with the cross-layer ops as nodes, proven equal to PyTorch on 8 validation images.

    Args:
        run: the folder that `finedge train` wrote.
        out: the bundle to write, e.g. birds.finedge; an existing bundle is replaced.
        data: the images for the proof; default: the data recorded in the run.
    """
    import onnx_ir as ir

    from finedge.bundle import FLOAT_FILE, GOLDEN, MANIFEST, Bundle
    from finedge.export.parity import check_parity, to_result
    from finedge.export.to_onnx import FramesToOutputs, to_onnx
    from finedge.golden import pack
    from finedge.train.run import load_run

    if out.exists() and not (out / MANIFEST).is_file():
        raise UsageError(f"{out} exists and is not a bundle", expected="a new name or a bundle to replace", fix="choose another --out")
    loaded = load_run(run)
    frames = _parity_frames(loaded, data)
    graph, taps = to_onnx(loaded.model, loaded.spec)
    model = ir.to_proto(graph)
    _check_model(model)
    reference = FramesToOutputs(loaded.model, loaded.spec.preprocess).eval()
    parity = check_parity(model, reference, frames)
    golden = pack(_golden(loaded, reference, model))
    content = model.SerializeToString()
    files = {FLOAT_FILE: content, GOLDEN: golden}
    bundle = Bundle.create(out, loaded.spec, files=files, taps=taps, views=loaded.model.views, provenance=_provenance(loaded, model, parity))
    log.info("wrote %s: max |delta| %.1e of %.1e allowed", out, parity.max_abs, parity.limit)
    return {"bundle": str(out.resolve()), "parity": to_result(parity), "taps": [t.name for t in taps], "bytes": len(content), "sha256": bundle.digest()}


def _parity_frames(run: Run, data: Path | None) -> NDArray[np.uint8]:
    """Return 8 preprocessed validation images, chosen by a fixed seed: uint8 [8, H, W, 3]."""
    from finedge.data import open_dataset
    from finedge.image import read_image
    from finedge.preprocess import preprocess
    from finedge.train.run import recorded_data

    found = open_dataset(data, seed=run.record["data"]["seed"]) if data else recorded_data(run.path)
    items = found.split("val")
    chosen = random.Random(0).sample(items, min(PARITY_IMAGES, len(items)))
    return np.stack([preprocess(read_image(i.path), run.spec.preprocess) for i in chosen])


def _check_model(model: onnx.ModelProto) -> None:
    import onnx

    onnx.checker.check_model(model, full_check=True)


def _golden(run: Run, reference: FramesToOutputs, model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Return the golden frame, its tensor, samples of the taps (PyTorch) and the outputs of the file (ONNX Runtime)."""
    import onnxruntime
    import torch

    from finedge.bundle import FLOAT_FILE
    from finedge.golden import synthetic_frame, tap_sample
    from finedge.preprocess import preprocess

    frame = synthetic_frame()
    pixels = preprocess(frame, run.spec.preprocess)
    with torch.no_grad():
        results = reference(torch.from_numpy(pixels[None]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = dict(zip((o.name for o in session.get_outputs()), session.run(None, {run.spec.input.name: pixels[None]}), strict=True))
    taps = dict(zip(run.model.taps, results[len(outputs) :], strict=True))
    return {
        "frame": frame,
        "input": pixels,
        **{f"tap/{name}": tap_sample(t.numpy()) for name, t in taps.items()},
        **{f"{FLOAT_FILE}/{name}": value for name, value in outputs.items()},
    }


def _provenance(run: Run, model: onnx.ModelProto, parity: Parity) -> dict[str, Any]:
    import onnx
    import onnxruntime
    import torch

    from finedge import __version__
    from finedge.export.parity import to_result
    from finedge.export.passes import NAMES

    versions = {"finedge": __version__, "torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    exported = {"parity": to_result(parity), "opset": model.opset_import[0].version, "ir": model.ir_version, "passes": list(NAMES), "versions": versions}
    return json.loads(json.dumps({"train": {**run.record, "run": str(run.path.resolve())}, "export": exported}))  # type: ignore[no-any-return]
