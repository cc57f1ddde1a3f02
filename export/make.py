"""A run becomes a bundle, once ONNX Runtime and PyTorch agree on real images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from finedge.bundle import FLOAT_FILE, GOLDEN, MANIFEST, Bundle
from finedge.errors import UsageError
from finedge.export.contents import export_record, golden_arrays, stored_split
from finedge.export.cost import count_cost
from finedge.export.framed import frame_size, framed_files, framed_spec
from finedge.export.onnx_files import onnx_files
from finedge.export.parity import check_file, expected_of
from finedge.export.reference import parity_frames, reference_model
from finedge.export.segments import NO_CUT, choose_exits, cut_files
from finedge.export.to_onnx import to_onnx
from finedge.files import writable_place
from finedge.golden import pack
from finedge.graph.inlining import inline
from finedge.graph.metadata import with_metadata
from finedge.progress import progress_bar, watched
from finedge.train.run import load_run

log = logging.getLogger(__name__)


def make_bundle(
    run: Path,
    *,
    out: Path,
    data: Path | None = None,
    frame: str | None = None,
    segments: bool = False,
    exits: str = "",
) -> dict[str, Any]:
    """Make a bundle of a run; return what `finedge export` prints, and takes as arguments.

    Raises:
        UsageError: `out` is something else than a bundle, or `exits` without `segments`.
        FinedgeError: of any kind, by the step that fails.
    """
    _check_out(out)
    _check_exits(segments=segments, exits=exits)
    loaded = load_run(run)
    spec = loaded.spec if frame is None else framed_spec(loaded.spec, frame_size(frame))
    frames, kind = parity_frames(loaded, data, preprocess=spec.preprocess)
    with progress_bar("tracing the model", None):
        graph, taps = to_onnx(loaded.model, loaded.spec)
    cost = count_cost(loaded.model, loaded.spec, graph)
    cost.report()
    functions = framed_files(onnx_files(graph, cost, taps), spec.preprocess)
    models = {name: with_metadata(inline(model), spec) for name, model in functions.items()}
    main = models[FLOAT_FILE]
    reference = reference_model(loaded, main, frames=frames, preprocess=spec.preprocess)
    plan = choose_exits(main, spec, names=exits) if segments else None
    expected = expected_of(reference, frames, outputs=len(spec.outputs))
    compared = watched(models.items(), "comparing with PyTorch", total=len(models))
    checks = {name: check_file(model, expected, frames, name=name) for name, model in compared}
    parities = {name: parity for name, parity in checks.items() if parity}
    contents = {name: models[name].SerializeToString() for name in parities}
    golden = golden_arrays(reference, spec, taps=loaded.model.taps, files=contents)
    cuts = cut_files({name: models[name] for name in parities}, plan, frames) if plan else NO_CUT
    files = {**contents, **cuts.files, GOLDEN: pack(golden), **stored_split(loaded, data)}
    provenance = export_record(loaded, main, parities=parities, cost=cost, frames=kind, cuts=cuts)
    bundle = Bundle.create(
        out, spec, files=files, taps=taps, views=loaded.model.views, provenance=provenance
    )
    for name, parity in parities.items():
        log.info(
            "wrote %s: max |delta| %.1e of %.1e allowed", out / name, parity.max_abs, parity.limit
        )
    return {
        "bundle": str(out.resolve()),
        "parity": parities[FLOAT_FILE].to_json(),
        "frames": kind,
        "taps": [t.name for t in taps],
        "bytes": len(contents[FLOAT_FILE]),
        "files": {
            name: {"bytes": len(contents[name]), **parity.to_json()}
            for name, parity in parities.items()
        },
        **({"segments": cuts.to_json()} if plan else {}),
        "sha256": bundle.digest(),
    }


def _check_exits(*, segments: bool, exits: str) -> None:
    if exits and not segments:
        raise UsageError(
            f"--exits {exits} without --segments",
            expected="both: the exits are where the graph is cut",
            fix=f"--segments --exits {exits}",
        )


def _check_out(out: Path) -> None:
    """Refuse, before any work, a path that is no bundle or cannot be written."""
    if out.exists() and not (out / MANIFEST).is_file():
        raise UsageError(
            f"{out} exists and is not a bundle",
            expected="a new name or a bundle to replace",
            fix="choose another --out",
        )
    writable_place(out.resolve().parent, option="--out")
