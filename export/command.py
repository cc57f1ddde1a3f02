"""`finedge export`: a run becomes a bundle, once ONNX Runtime and PyTorch agree on real images."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from finedge.errors import GateError, UsageError

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from finedge.export.parity import Expected, Parity
    from finedge.export.passes.cost import ModelCost
    from finedge.spec import Preprocess, Spec
    from finedge.train.run import Run

log = logging.getLogger(__name__)

PARITY_IMAGES = 8


def export(
    run: Positional[Path], *, out: Path, data: Path | None = None, frame: str | None = None
) -> dict[str, Any]:
    """Make a bundle of a run: ONNX files in standard ops, each proven equal to PyTorch on 8 validation images.

    Args:
        run: the folder that `finedge train` wrote.
        out: the bundle to write, e.g. birds.finedge; an existing bundle is replaced.
        data: the images for the proof; default: the data recorded in the run.
        frame: HEIGHTxWIDTH, e.g. 720x1280: the graph takes whole frames of that size, and resizes and crops them itself.
    """
    from finedge.bundle import FLOAT_FILE, GOLDEN, MANIFEST, Bundle
    from finedge.export.float_files import accepting_frames, count_cost, float_files
    from finedge.export.framed import frame_size, framed_spec
    from finedge.export.parity import expected_of, to_result
    from finedge.export.to_onnx import to_onnx
    from finedge.files import writable_place
    from finedge.golden import pack
    from finedge.graph.inlining import inline
    from finedge.graph.metadata import with_facts
    from finedge.train.run import load_run

    if out.exists() and not (out / MANIFEST).is_file():
        raise UsageError(
            f"{out} exists and is not a bundle",
            expected="a new name or a bundle to replace",
            fix="choose another --out",
        )
    writable_place(out.resolve().parent, option="--out")
    loaded = load_run(run)
    spec = loaded.spec if frame is None else framed_spec(loaded.spec, frame_size(frame))
    frames, of = _parity_frames(loaded, data, how=spec.preprocess)
    graph, taps = to_onnx(loaded.model, loaded.spec)
    cost = count_cost(loaded.model, loaded.spec, graph)
    cost.report()
    called = accepting_frames(float_files(graph, cost, taps), spec.preprocess)
    models = {name: with_facts(inline(model), spec) for name, model in called.items()}
    reference = _reference(loaded, models[FLOAT_FILE], frames=frames, how=spec.preprocess)
    expected = expected_of(reference, frames, outputs=len(spec.outputs))
    proofs = {n: _proven(model, expected, frames=frames, name=n) for n, model in models.items()}
    parities = {name: parity for name, parity in proofs.items() if parity}
    contents = {name: models[name].SerializeToString() for name in parities}
    golden = pack(_golden(reference, spec, taps=loaded.model.taps, contents=contents))
    files = {**contents, GOLDEN: golden, **_stored_split(loaded, data)}
    provenance = _provenance(loaded, models[FLOAT_FILE], parities=parities, cost=cost, frames=of)
    bundle = Bundle.create(
        out, spec, files=files, taps=taps, views=loaded.model.views, provenance=provenance
    )
    for name, parity in parities.items():
        log.info(
            "wrote %s: max |delta| %.1e of %.1e allowed", out / name, parity.max_abs, parity.limit
        )
    return {
        "bundle": str(out.resolve()),
        "parity": to_result(parities[FLOAT_FILE]),
        "frames": of,
        "taps": [t.name for t in taps],
        "bytes": len(contents[FLOAT_FILE]),
        "files": {
            name: {"bytes": len(contents[name]), **to_result(parity)}
            for name, parity in parities.items()
        },
        "sha256": bundle.digest(),
    }


def _reference(
    run: Run, model: onnx.ModelProto, *, frames: NDArray[np.uint8], how: Preprocess
) -> nn.Module:
    """Return the model in PyTorch; behind the crop of the graph, checked on `frames`, where that takes whole frames."""
    from finedge.export.framed import FramedReference, check_crops
    from finedge.export.to_onnx import FramesToOutputs

    reference = FramesToOutputs(run.model, run.spec.preprocess).eval()
    if how.frame is None:
        return reference
    framed = FramedReference(reference, model)
    log.info(
        "the graph's crops differ from preprocess() by at most %d grey level(s)",
        check_crops(framed, frames, how=run.spec.preprocess),
    )
    return framed


def _stored_split(run: Run, data: Path | None) -> dict[str, bytes]:
    """Return the file of the run's split; without digests, as far as its images are here."""
    from finedge.data.stored import FILE, filled
    from finedge.train.run import recorded_split

    stored = filled(recorded_split(run.path), data or Path(run.record["data"]["root"]))
    if not stored.has_digests():
        log.warning(
            "%s holds no digests of its images, and not all are here: the bundle knows only a part",
            run.path,
        )
    return {FILE: stored.packed()}


def _parity_frames(
    run: Run,
    data: Path | None,
    *,
    how: Preprocess,
) -> tuple[NDArray[np.uint8], str]:
    """Return 8 preprocessed validation images by a fixed seed, uint8 [8, H, W, 3]; and their kind.

    Without validation images the golden frame stands in, turned and mirrored.
    """
    from finedge.golden import synthetic_frame, turned
    from finedge.image import read_image
    from finedge.preprocess import preprocess
    from finedge.train.run import recorded_data

    found = recorded_data(run.path, root=data)
    items = found.splits.get("val", ())
    if not items:
        log.warning(
            "%s has no validation images: the golden frame is compared, turned and mirrored",
            found.root,
        )
        return np.stack([preprocess(frame, how) for frame in turned(synthetic_frame())]), "golden"
    chosen = random.Random(0).sample(items, min(PARITY_IMAGES, len(items)))
    return np.stack([preprocess(read_image(i.path), how) for i in chosen]), "val"


def _proven(
    model: onnx.ModelProto,
    expected: Expected,
    *,
    frames: NDArray[np.uint8],
    name: str,
) -> Parity | None:
    """Check a file's graph, and its outputs against PyTorch; None: this model cannot be float16."""
    import onnx

    from finedge.bundle import HALF_FILE
    from finedge.export.parity import TOLERANCE, check_parity, rounds_too_much
    from finedge.runtime.agreement import FP16_LIMIT

    onnx.checker.check_model(model, full_check=True)
    if name != HALF_FILE:
        return check_parity(model, expected, frames, tolerance=TOLERANCE, name=name)
    try:
        return check_parity(model, expected, frames, tolerance=FP16_LIMIT, name=name)
    except GateError as error:
        if not rounds_too_much(expected, tolerance=FP16_LIMIT):
            raise
        log.warning(
            "%s is left out: %s. Rounding changes this model too much (to do: train it longer)",
            name,
            error.what,
        )
        return None


def _golden(
    reference: nn.Module, spec: Spec, *, taps: Sequence[str], contents: Mapping[str, bytes]
) -> dict[str, NDArray[np.generic]]:
    """Return the golden frame, its tensor, samples of the taps (PyTorch) and the outputs of the files (ONNX Runtime)."""
    import torch

    from finedge.golden import synthetic_frame, tap_sample
    from finedge.preprocess import preprocess

    frame = synthetic_frame()
    pixels = preprocess(frame, spec.preprocess)
    inputs = {spec.input.name: pixels[None]}
    with torch.no_grad():
        results = reference(torch.from_numpy(pixels[None]))
    return {
        "frame": frame,
        "input": pixels,
        **{
            f"tap/{name}": tap_sample(t.numpy())
            for name, t in zip(taps, results[len(spec.outputs) :], strict=True)
        },
        **{
            f"{file}/{name}": value
            for file, content in contents.items()
            for name, value in _outputs(content, inputs).items()
        },
    }


def _outputs(
    content: bytes, inputs: dict[str, NDArray[np.uint8]]
) -> dict[str, NDArray[np.float32]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return dict(
        zip((o.name for o in session.get_outputs()), session.run(None, inputs), strict=True)
    )


def _provenance(
    run: Run,
    model: onnx.ModelProto,
    *,
    parities: Mapping[str, Parity],
    cost: ModelCost,
    frames: str,
) -> dict[str, Any]:
    import onnx
    import onnxruntime
    import torch

    from finedge import __version__
    from finedge.bundle import FLOAT_FILE
    from finedge.export.parity import to_result
    from finedge.export.passes import NAMES

    exported = {
        "parity": to_result(parities[FLOAT_FILE]),
        "parities": {name: to_result(parity) for name, parity in parities.items()},
        "frames": frames,
        "opset": model.opset_import[0].version,
        "ir": model.ir_version,
        "passes": list(NAMES),
        "attention_cost": cost.to_json(),
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
