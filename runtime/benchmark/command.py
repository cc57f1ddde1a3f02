"""`finedge benchmark`: accuracy and latency of every variant of one or more bundles, in one interleaved run."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from finedge.bundle import VARIANTS, Bundle
from finedge.data import NewImages
from finedge.errors import InvalidBenchmark, UsageError, nearest
from finedge.files import writable_folder, write_bytes, write_text
from finedge.measure import MIN_QUERIES

if TYPE_CHECKING:
    from finedge.data import Item
    from finedge.runtime.benchmark.frames import Frames
    from finedge.runtime.benchmark.modes import Lane
    from finedge.runtime.benchmark.results import Claims, Measured
    from finedge.runtime.benchmark.run import Schedule
    from finedge.runtime.classifier import Classifier
    from finedge.runtime.evaluate.predict import Answers

log = logging.getLogger(__name__)

SCHEMA = 1
NO_LABELS = "not measured: no labelled data"


@dataclass(frozen=True)
class Settings:
    """The options of a run besides bundles and data."""

    variants: tuple[str, ...]
    mode: str
    batch: int
    backend: str
    threads: int | None
    split: str
    images: int
    accuracy_images: int | None
    source: str = ""
    fps: float | None = None
    new_images: NewImages = "ignore"
    allow_overlap: bool = False


def benchmark(
    bundles: Positional[tuple[Path, ...]],
    *,
    data: Path | None = None,
    variants: str = "",
    duration: str = "10s",
    mode: str = "single-stream",
    backend: str = "auto",
    threads: int | None = None,
    batch: int = 8,
    split: str = "test",
    images: int = 256,
    accuracy_images: int | None = None,
    gate: float | None = None,
    percentile: str = "",
    source: str = "",
    fps: float | None = None,
    new_images: NewImages = "ignore",
    allow_overlap: bool = False,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure every variant in turn, block by block, and write report.json and samples.json.gz.

    The headline is the wall time from a decoded frame in host memory to the top-k on the host. Exit code 6 when a row is INVALID;
    the report is written all the same.

    Args:
        bundles: one or more bundles; with several, each further one is also compared with the first.
        data: labelled images; default: those the training recorded, else rendered scenes (and no accuracy).
        variants: fp32, fp16, int8 in a comma list; default: all that each bundle holds and the backend runs to a purpose (no fp16 on a CPU).
        duration: time of measuring for each row, e.g. 10s, 500ms, 2m.
        mode: single-stream, offline, camera, or several in a comma list. Camera measures how old frames are when they are answered.
        backend: a backend's name, or auto for the first that runs here.
        threads: CPU threads; default: the physical cores this process may use.
        batch: frames of an offline query.
        split: the images to use: train, val or test.
        images: how many frames to rotate.
        accuracy_images: measure accuracy on so many images only; default: the whole split.
        gate: the least top-1 share (0 to 1); a row below it is INVALID.
        percentile: percentiles that the sample must support, e.g. 99 or 90,99; a row that does not is INVALID.
        source: of camera mode: a live source as `finedge classify` takes it; default: the frames are replayed.
        fps: of camera mode: frames a second; default: 30 for a replay, else what the source gives.
        new_images: where images go that the stored split does not know: nowhere (ignore), or into
            train, val or test.
        allow_overlap: measure also on images that were trained on, or may have been; the report
            counts them.
        out: folder of the report; default: the first bundle.
    """
    from finedge.runtime.benchmark.results import Claims
    from finedge.runtime.benchmark.run import schedule

    if min(images, batch, accuracy_images or 1) < 1:
        raise UsageError(
            f"--images {images} --batch {batch} --accuracy-images {accuracy_images}",
            expected="at least 1 each",
        )
    claims, plan = Claims(_percentiles(percentile), _gate(gate)), schedule(duration)
    opened = load_bundles(bundles)
    folder = writable_folder(out or bundles[0], option="--out")
    settings = Settings(
        _variants(variants),
        mode,
        batch,
        backend,
        threads,
        split,
        images,
        accuracy_images,
        source,
        fps,
        new_images,
        allow_overlap,
    )
    measured = measure(opened, data, settings=settings, plan=plan)
    content = report_content(measured, claims=claims, plan=plan, settings=settings)
    write_bytes(folder / "samples.json.gz", _samples(measured))
    write_text(folder / "report.json", json.dumps(content, indent=1))
    return _checked(
        {
            **{k: content[k] for k in ("schema", "made", "environment", "rows", "comparisons")},
            "report": str((folder / "report.json").resolve()),
        }
    )


def load_bundles(paths: tuple[Path, ...]) -> dict[str, Bundle]:
    """Open bundles by name; two of one name are told apart by their parent folder."""
    if not paths:
        raise UsageError(
            "no bundle was given",
            expected="one or more bundles",
            fix="finedge benchmark birds.finedge --data DIR",
        )
    if len({p.resolve() for p in paths}) < len(paths):
        raise UsageError(
            f"a bundle is given twice: {', '.join(map(str, paths))}", expected="different bundles"
        )
    loaded = [Bundle.load(p) for p in paths]
    names = [b.name for b in loaded]
    return {
        n if names.count(n) == 1 else f"{b.path.resolve().parent.name}/{n}": b
        for n, b in zip(names, loaded, strict=True)
    }


def measure(
    bundles: dict[str, Bundle], data: Path | None, *, settings: Settings, plan: Schedule
) -> Measured:
    """Open every variant, take its accuracy, then time all of them interleaved."""
    from finedge.runtime.backend import get_backend, usual_variants
    from finedge.runtime.benchmark.frames import labelled_images
    from finedge.runtime.benchmark.modes import CAMERA, Lane, parse_modes
    from finedge.runtime.benchmark.results import Measured
    from finedge.runtime.benchmark.run import MIN_BLOCKS, interleave
    from finedge.runtime.environment import UNKNOWN, environment

    machine = environment()
    modes = parse_modes(settings.mode, batch=settings.batch)
    chosen = {
        name: labelled_images(
            bundle,
            data,
            split=settings.split,
            new_images=settings.new_images,
            allow_overlap=settings.allow_overlap,
        )
        for name, bundle in bundles.items()
    }
    items = {name: None if found is None else found.items for name, found in chosen.items()}
    with ExitStack() as stack:
        backend = get_backend(settings.backend)
        wanted = (
            (n, b, v)
            for n, b in bundles.items()
            for v in settings.variants or usual_variants(backend, b)
        )
        classifiers = {(n, v): stack.enter_context(_open(b, v, settings)) for n, b, v in wanted}
        answers, note = _accuracies(classifiers, items, limit=settings.accuracy_images)
        frames = _frames(items, settings)
        asking = [
            Lane(name, classifier, mode, frames)
            for mode in modes
            if mode.name != CAMERA
            for (name, _), classifier in classifiers.items()
        ]
        throttled = {interleave(asking, plan)}
        watching = [
            _camera_lane(name, c, frames=frames, settings=settings, stack=stack)
            for mode in modes
            if mode.name == CAMERA
            for (name, _), c in classifiers.items()
        ]
        # Few long blocks: each starts threads, and perhaps a connection.
        throttled.add(interleave(watching, replace(plan, blocks=MIN_BLOCKS, rewarm_s=0.0)))
    slowed = True if True in throttled else UNKNOWN if UNKNOWN in throttled else False
    origins = {name: found.record for name, found in chosen.items() if found is not None}
    return Measured(bundles, [*asking, *watching], machine, answers, slowed, note, origins)


def report_content(
    measured: Measured, *, claims: Claims, plan: Schedule, settings: Settings
) -> dict[str, Any]:
    """Return what report.json holds."""
    from finedge.runtime.benchmark.results import class_changes, comparisons, rows

    table, frames = rows(measured, claims), measured.lanes[0].frames
    method = {
        **asdict(plan), "block_s": round(plan.block_s, 4), "frames": len(frames.frames), "frames_from": frames.source, "threads": settings.threads,
        "split": settings.split, "gate": claims.gate, "percentiles": list(claims.percentiles), "data": dict(measured.data),
    }  # fmt: skip
    return {
        "schema": SCHEMA,
        "made": datetime.now(tz=timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "environment": dict(measured.environment),
        "method": method,
        "rows": [r.to_json() for r in table],
        "comparisons": comparisons(measured, table),
        "per_class": class_changes(measured),
    }


def _open(bundle: Bundle, variant: str, settings: Settings, *, spin: bool = True) -> Classifier:
    from finedge.runtime.classifier import Classifier

    return Classifier.open(
        bundle, variant=variant, backend=settings.backend, threads=settings.threads, spin=spin
    )


def _camera_lane(
    name: str, classifier: Classifier, *, frames: Frames, settings: Settings, stack: ExitStack
) -> Lane:
    from finedge.runtime.benchmark.camera import CameraLane
    from finedge.runtime.benchmark.modes import CAMERA, Mode

    # As `finedge classify` opens it: threads that spin while they wait would take the core of the preprocessing.
    opened = stack.enter_context(_open(classifier.bundle, classifier.variant, settings, spin=False))
    return CameraLane(name, opened, Mode(CAMERA, 1), frames, uri=settings.source, fps=settings.fps)


def _accuracies(
    classifiers: dict[tuple[str, str], Classifier],
    items: dict[str, tuple[Item, ...] | None],
    *,
    limit: int | None,
) -> tuple[dict[tuple[str, str], Answers], str]:
    from finedge.runtime.benchmark.accuracy import choose
    from finedge.runtime.evaluate.predict import predict

    answers = {}
    for (name, variant), classifier in classifiers.items():
        wanted = items[name]
        if wanted is not None:
            log.info("accuracy of %s %s", name, variant)
            answers[name, variant] = predict(classifier, choose(wanted, limit))
    if not answers:
        return {}, NO_LABELS
    return answers, "" if limit is None else f"measured on at most {limit} images of the split"


def _frames(items: dict[str, tuple[Item, ...] | None], settings: Settings) -> Frames:
    from finedge.runtime.benchmark.frames import image_frames, rendered_frames

    first = next((i for i in items.values() if i), None)
    return (
        image_frames(first, count=settings.images, split=settings.split)
        if first
        else rendered_frames(settings.images)
    )


def _samples(measured: Measured) -> bytes:
    from finedge.runtime.benchmark.results import samples

    return samples(measured)


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    bad = [r for r in result["rows"] if not r["valid"]]
    if bad:
        reasons = "\n".join(
            f"  {r['bundle']} {r['variant']} {r['mode']}: {'; '.join(r['invalid_reasons'])}"
            for r in bad
        )
        raise InvalidBenchmark(
            f"{len(bad)} of {len(result['rows'])} rows are INVALID:\n{reasons}",
            fix="measure longer, on an idle and cool machine",
            result=result,
        )
    return result


def _variants(names: str) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(n.strip() for n in names.split(",") if n.strip()))
    for name in wanted:
        if name not in VARIANTS:
            raise UsageError(f"unknown variant '{name}'", expected=nearest(name, VARIANTS))
    return wanted


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        wanted = tuple(float(p.strip().removeprefix("p")) for p in text.split(",") if p.strip())
    except ValueError:
        wanted = (0.0,)
    if any(p not in MIN_QUERIES for p in wanted):
        raise UsageError(
            f"percentile '{text}'", expected=f"of {', '.join(f'{p:g}' for p in MIN_QUERIES)}"
        )
    return wanted


def _gate(value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise UsageError(f"--gate {value:g}", expected="a top-1 share from 0 to 1, e.g. 0.85")
    return value
