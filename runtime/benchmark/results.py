"""From raw samples and answers to report.json: rows, what is INVALID and why, comparisons, and the samples themselves."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from finedge.bundle import Bundle
from finedge.runtime.backend import SessionInfo
from finedge.runtime.benchmark.accuracy import change, per_class
from finedge.runtime.benchmark.modes import TOTAL, Lane
from finedge.runtime.benchmark.rows import Row, latency_fields, median_or_none, unsupported
from finedge.runtime.benchmark.run import clock_drop
from finedge.runtime.evaluate.predict import Answers
from finedge.runtime.trt.build.store import EngineStore

log = logging.getLogger(__name__)

MAX_CLOCK_DROP = 0.05
Key = tuple[str, str]  # (bundle name, variant)


@dataclass(frozen=True)
class Claims:
    """What the user asked the numbers to support: percentiles, and a least top-1 share."""

    percentiles: tuple[float, ...] = ()
    gate: float | None = None


@dataclass(frozen=True)
class Measured:
    """Everything one run produced; `bundles` by name, `answers` by bundle and variant, empty without labelled data.

    `environment` was read before the first frame, so that its load is that of others. `data`: the
    origin of the images by bundle.
    """

    bundles: Mapping[str, Bundle]
    lanes: Sequence[Lane]
    environment: Mapping[str, Any]
    answers: Mapping[Key, Answers] = field(default_factory=dict)
    throttled: bool | str = "unknown"
    note: str = ""
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def rows(measured: Measured, claims: Claims) -> tuple[Row, ...]:
    """Return a row for each lane."""
    return tuple(_row(lane, measured, claims) for lane in measured.lanes)


def comparisons(measured: Measured, table: Sequence[Row]) -> list[dict[str, Any]]:
    """Return how each further bundle differs from the first, variant by variant, where both answered the same images."""
    first, *others = measured.bundles
    p50 = {(r.bundle, r.variant): r.p50_ms for r in reversed(table)}
    found = []
    for other in others:
        for variant in dict.fromkeys(r.variant for r in table):
            a, b = measured.answers.get((first, variant)), measured.answers.get((other, variant))
            if a is None or b is None:
                continue
            if a.items != b.items:
                text = "%s and %s (%s) are not compared: their stored splits name different images (%d and %d)"
                log.warning(text, first, other, variant, len(a.items), len(b.items))
                continue
            times = [p50[first, variant], p50[other, variant]]
            found.append(
                {
                    "first": first,
                    "second": other,
                    "variant": variant,
                    "n": len(a.items),
                    "p50_ms": times,
                    **asdict(change(a, b)),
                }
            )
    return found


def class_changes(measured: Measured) -> dict[str, list[dict[str, Any]]]:
    """Return the accuracy of each class by bundle: label, n, top1 by variant, change fp32 to int8."""
    by_bundle = {
        name: {v: a for (b, v), a in measured.answers.items() if b == name}
        for name in measured.bundles
    }
    return {
        name: per_class(measured.bundles[name].spec.labels, answers)
        for name, answers in by_bundle.items()
        if answers
    }


def samples(measured: Measured) -> bytes:
    """Return samples.json.gz: every recorded time by row and stage, where each block begins, what was read at its end, and every image's top-1."""
    lanes = [
        {
            "bundle": lane.bundle, "variant": lane.classifier.variant, "mode": lane.mode.name, "batch": lane.mode.batch,
            "ms": {stage: [round(t, 5) for t in times] for stage, times in lane.times.samples_ms.items()},
            "block_starts": lane.blocks, "clocks_mhz": lane.clocks_mhz, "watts": [None if w is None else round(w[0], 4) for w in lane.watts],
            "gpu_mhz": _gpu_clocks(lane), "hottest_c": [reading.hottest_c for reading in lane.readings],
        }
        for lane in measured.lanes
    ]  # fmt: skip
    answers = [
        {
            "bundle": bundle,
            "variant": variant,
            "images": [i.path.name for i in a.items],
            "labels": a.labels.tolist(),
            "top1": a.ranked[:, 0].tolist(),
        }
        for (bundle, variant), a in measured.answers.items()
    ]
    content = {
        "schema": 1,
        "lanes": lanes,
        "decode_ms": list(measured.lanes[0].frames.decode_ms),
        "answers": answers,
    }
    return gzip.compress(json.dumps(content).encode(), mtime=0)


def _row(lane: Lane, measured: Measured, claims: Claims) -> Row:
    bundle, info, times = measured.bundles[lane.bundle], lane.classifier.session.info, lane.times
    fps = lane.images_per_second
    power = _power(lane)
    stages = {
        stage: median_or_none(times.samples_ms.get(stage, ()))
        for stage in ("preprocess", "infer", "post")
    }
    reasons = _invalid_reasons(lane, measured, claims)
    return Row(
        bundle=lane.bundle,
        model=bundle.spec.model,
        backbone=bundle.spec.backbone,
        variant=lane.classifier.variant,
        file=info.file,
        file_bytes=_file_bytes(bundle, info),
        digest=bundle.digest(),
        backend=info.backend,
        device=info.device,
        precision=info.precision,
        batch=lane.mode.batch,
        mode=lane.mode.name,
        **latency_fields(times[TOTAL]),
        engine_p50_ms=stages["infer"],
        stages_p50_ms={"decode": median_or_none(lane.decode_ms), **stages},
        images_per_second=round(fps, 3),
        **_accuracy_fields(lane, measured),
        clocks=_clocks(lane),
        power_mode=(lane.readings[-1].power_mode if lane.readings else None) or "unknown",
        power=power,
        energy_mj=None if power["mean_w"] is None else round(1e3 * power["mean_w"] / fps, 3),
        throttled=measured.throttled,
        valid=not reasons,
        invalid_reasons=reasons,
        camera=lane.of_the_camera(),
    )


def _file_bytes(bundle: Bundle, info: SessionInfo) -> int:
    if not info.source:
        return bundle.file(info.file).stat().st_size
    return next(
        found.path.stat().st_size
        for found in EngineStore.of(bundle)
        if found.path.name == info.file
    )


def _accuracy_fields(lane: Lane, measured: Measured) -> dict[str, Any]:
    found = measured.answers.get((lane.bundle, lane.classifier.variant))
    base = measured.answers.get((lane.bundle, "fp32"))
    changes = dict.fromkeys(
        ("top1_change", "top1_change95", "mcnemar_p", "flips", "gained", "lost")
    )
    if found is None:
        return {
            "top1": None,
            "top5": None,
            "wilson95": None,
            "accuracy_n": 0,
            "accuracy_note": measured.note,
            **changes,
        }
    if base is not None and lane.classifier.variant != "fp32":
        changes = asdict(change(base, found))
    record = found.record()
    return {
        "top1": record["top1"],
        "top5": record["top5"],
        "wilson95": record["wilson95"],
        "accuracy_n": record["n"],
        "accuracy_note": measured.note,
        **changes,
    }


def _clocks(lane: Lane) -> dict[str, Any]:
    locked = lane.readings[-1].clocks_locked if lane.readings else None
    gpu = (
        {f"gpu_{name}": value for name, value in _change(_gpu_clocks(lane)).items()}
        if _on_gpu(lane)
        else {}
    )
    return {**_change(lane.clocks_mhz), **gpu, "locked": "unknown" if locked is None else locked}


def _change(readings_mhz: Sequence[float | None]) -> dict[str, Any]:
    drop = clock_drop(readings_mhz)
    known = readings_mhz or [None]
    return {
        "before_mhz": known[0],
        "after_mhz": known[-1],
        "drop": "unknown" if drop is None else round(drop, 4),
    }


def _gpu_clocks(lane: Lane) -> list[float | None]:
    return [reading.gpu_mhz for reading in lane.readings]


def _on_gpu(lane: Lane) -> bool:
    """Tell whether an engine ran; the clock of a GPU that rests says nothing about a row of the CPU."""
    return bool(lane.classifier.session.info.source)


def _power(lane: Lane) -> dict[str, Any]:
    """Return the mean power in W of the blocks; of a sensor that failed in between there is no mean."""
    told = [w for w in lane.watts if w is not None]
    if not told or len(told) < len(lane.watts):
        return {"mean_w": None, "sensor": None, "readings": len(told)}
    return {
        "mean_w": round(sum(w for w, _ in told) / len(told), 4),
        "sensor": told[0][1],
        "readings": len(told),
    }


def _invalid_reasons(lane: Lane, measured: Measured, claims: Claims) -> tuple[str, ...]:
    reasons = [*unsupported(claims.percentiles, len(lane.times[TOTAL])), *lane.problems()]
    for what, readings in (
        ("clock", lane.clocks_mhz),
        ("GPU's clock", _gpu_clocks(lane) if _on_gpu(lane) else []),
    ):
        drop = clock_drop(readings)
        if drop is not None and drop > MAX_CLOCK_DROP:
            reasons.append(
                f"the {what} fell by {drop:.1%} while measuring (at most {MAX_CLOCK_DROP:.0%})"
            )
    if measured.throttled is True:
        reasons.append(
            f"the machine was slowed while measuring: {', '.join(_slowed_by(measured)) or 'no cause was told'}"
        )
    if claims.gate is not None:
        reasons += _below_gate(
            measured.answers.get((lane.bundle, lane.classifier.variant)), claims.gate
        )
    return tuple(reasons)


def _slowed_by(measured: Measured) -> list[str]:
    return list(
        dict.fromkeys(
            name
            for lane in measured.lanes
            for reading in lane.readings
            for name in reading.throttled_by
        )
    )


def _below_gate(answers: Answers | None, gate: float) -> list[str]:
    if answers is None:
        return [f"a gate of top-1 {gate:g} was set, but accuracy was not measured"]
    top1 = float(answers.correct.mean())
    return [f"top-1 {top1:.4f} is below the gate {gate:g}"] if top1 < gate else []
