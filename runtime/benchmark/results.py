"""From raw samples and answers to report.json and samples.json.gz."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any

from finedge.runtime.benchmark.accuracy import Change, change, per_class, reliability_record
from finedge.runtime.benchmark.conditions import (
    clocks_record,
    invalid_reasons,
    power_mode,
    power_record,
)
from finedge.runtime.benchmark.key import Key
from finedge.runtime.benchmark.lane import TOTAL, BenchmarkLane
from finedge.runtime.benchmark.measure import BenchmarkOptions, Measured
from finedge.runtime.benchmark.options import Claims
from finedge.runtime.benchmark.peak import peak_record
from finedge.runtime.benchmark.rows import BenchmarkRow, latency_fields, median_or_none
from finedge.runtime.early_exit.record import exit_record, shares
from finedge.runtime.early_exit.session import EarlyExitSession
from finedge.runtime.evaluate.predict import Answers
from finedge.runtime.report.calibration import calibration_sections
from finedge.runtime.report.exits import fitted_sections

log = logging.getLogger(__name__)

SCHEMA = 1
STAGES = ("preprocess", "infer", "post")
NO_CHANGE: dict[str, Any] = dict.fromkeys(Change.__dataclass_fields__)


def report_content(
    measured: Measured, *, claims: Claims, options: BenchmarkOptions
) -> dict[str, Any]:
    """Return what report.json holds."""
    table = rows(measured, claims)
    return {
        "schema": SCHEMA,
        "made": datetime.now(tz=timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "environment": dict(measured.environment),
        "method": _method(measured, claims=claims, options=options),
        "rows": [row.to_json() for row in table],
        "comparisons": comparisons(measured, table),
        "per_class": class_changes(measured),
        "choices": {name: choice.to_json() for name, choice in measured.choices.items()},
        "reliability": reliabilities(measured),
        "calibration": calibration_sections(measured.bundles),
        "exits": fitted_sections(measured.bundles),
    }


def _method(measured: Measured, *, claims: Claims, options: BenchmarkOptions) -> dict[str, Any]:
    """Return how it was measured."""
    plan, frames = options.run.schedule, measured.lanes[0].frames
    return {
        **asdict(plan),
        "block_s": round(plan.block_s, 4),
        "frames": len(frames.frames),
        "frames_from": frames.source,
        "threads": options.run.threads,
        "split": options.dataset.split,
        "gate": claims.gate,
        "percentiles": list(claims.percentiles),
        "data": dict(measured.data),
    }


def rows(measured: Measured, claims: Claims) -> tuple[BenchmarkRow, ...]:
    """Return a row for each lane."""
    return tuple(_row(lane, measured, claims=claims) for lane in measured.lanes)


def _row(lane: BenchmarkLane, measured: Measured, *, claims: Claims) -> BenchmarkRow:
    bundle, info = measured.bundles[lane.bundle], lane.classifier.session.info
    file = info.path or bundle.file(info.file)
    samples_ms, fps, power = lane.times.samples_ms, lane.images_per_second, power_record(lane)
    stages = {stage: median_or_none(samples_ms.get(stage, ())) for stage in STAGES}
    reasons = invalid_reasons(lane, measured, claims=claims)
    return BenchmarkRow(
        bundle=lane.bundle,
        model=bundle.spec.model,
        backbone=bundle.spec.backbone,
        variant=lane.classifier.variant,
        file=info.file,
        file_bytes=file.stat().st_size,
        digest=bundle.digest(),
        backend=info.backend,
        device=info.device,
        precision=info.precision,
        batch=lane.mode.batch,
        mode=lane.mode.name,
        **latency_fields(samples_ms[TOTAL]),
        engine_p50_ms=stages["infer"],
        stages_p50_ms={"decode": median_or_none(lane.decode_ms), **stages},
        images_per_second=round(fps, 3),
        **_accuracy_fields(measured, lane.key),
        clocks=clocks_record(lane),
        power_mode=power_mode(lane),
        power=power,
        energy_mj=None if power["mean_w"] is None else round(1e3 * power["mean_w"] / fps, 3),
        throttled=measured.throttled,
        valid=not reasons,
        invalid_reasons=reasons,
        camera=lane.camera_record(),
        int8_peak=peak_record(lane, infer_ms=stages["infer"], threads=measured.threads),
        early_exit=_exit_fields(lane, measured),
        looks=1 if lane.classifier.second_look is None else 2,
    )


def _exit_fields(lane: BenchmarkLane, measured: Measured) -> dict[str, Any] | None:
    """Return what early exits did in a row; None without them."""
    session, key = lane.classifier.session, lane.key
    if not isinstance(session, EarlyExitSession):
        return None
    timed = {
        "timed_frames": shares(session.exits, lane.exit_counts),
        "whole_mean_ms": _whole_mean_ms(lane, measured),
    }
    early, whole = measured.answers.get(key), measured.answers.get(key.whole)
    if early is None or whole is None or early.taken is None:
        return timed
    record = exit_record(session.exits, early.taken, early.correct)
    return {
        **record,
        **timed,
        "ece": reliability_record(early)["ece"],
        "against_whole": asdict(change(whole, early)),
    }


def _whole_mean_ms(lane: BenchmarkLane, measured: Measured) -> float:
    """Return the mean time of the same model without early exits, in the same mode."""
    whole = next(
        other for other in measured.lanes if (other.key, other.mode) == (lane.key.whole, lane.mode)
    )
    mean_ms: float = latency_fields(whole.times[TOTAL])["mean_ms"]
    return mean_ms


def _accuracy_fields(measured: Measured, key: Key) -> dict[str, Any]:
    """Return the accuracy of a variant, and its change from fp32 of the same bundle.

    With early exits that is fp32 with early exits.
    """
    answers = measured.answers.get(key)
    float_answers = measured.answers.get(replace(key, variant="fp32"))
    record: dict[str, Any] = {"top1": None, "top5": None, "wilson95": None, "n": 0}
    changes = NO_CHANGE
    if answers is not None:
        record = answers.record()
        if float_answers is not None and key.variant != "fp32":
            changes = asdict(change(float_answers, answers))
    return {
        "top1": record["top1"],
        "top5": record["top5"],
        "wilson95": record["wilson95"],
        "accuracy_n": record["n"],
        "accuracy_note": measured.note,
        **changes,
    }


def comparisons(measured: Measured, table: Sequence[BenchmarkRow]) -> list[dict[str, Any]]:
    """Return how each further bundle differs from the first, variant by variant.

    Both must have answered the same images. `early_exit` says that the second one ran with early
    exits.
    """
    first, *others = dict.fromkeys(lane.key.contender for lane in measured.lanes)
    times = {lane.key: row for lane, row in reversed([*zip(measured.lanes, table, strict=True)])}
    records = []
    for other in others:
        for variant in dict.fromkeys(row.variant for row in table):
            keys = (replace(first, variant=variant), replace(other, variant=variant))
            a, b = (measured.answers.get(key) for key in keys)
            if a is not None and b is not None and _same_images(a, b, keys=keys):
                record = {
                    "first": first.bundle,
                    "second": other.bundle,
                    "early_exit": other.early_exit,
                    "variant": variant,
                    "n": len(a.items),
                    "p50_ms": [times[key].p50_ms for key in keys],
                    "mean_ms": [times[key].mean_ms for key in keys],
                }
                records.append({**record, **asdict(change(a, b))})
    return records


def _same_images(a: Answers, b: Answers, *, keys: tuple[Key, Key]) -> bool:
    """Tell whether two bundles answered the same images; if not, a warning says so."""
    if a.items == b.items:
        return True
    first, second = keys
    text = "%s and %s (%s) are not compared: their stored splits name different images (%d and %d)"
    log.warning(text, first.bundle, second.bundle, first.variant, len(a.items), len(b.items))
    return False


def class_changes(measured: Measured) -> dict[str, list[dict[str, Any]]]:
    """Return the accuracy of each class by bundle: label, n, top1 by variant, change to int8."""
    by_bundle: dict[str, dict[str, Answers]] = {}
    for key, answers in _whole_answers(measured):
        by_bundle.setdefault(key.bundle, {})[key.variant] = answers
    return {
        name: per_class(measured.bundles[name].spec.labels, by_bundle[name])
        for name in measured.bundles
        if name in by_bundle
    }


def reliabilities(measured: Measured) -> dict[str, dict[str, Any]]:
    """Return how far the probabilities of each bundle and variant can be trusted."""
    records: dict[str, dict[str, Any]] = {}
    for key, answers in _whole_answers(measured):
        records.setdefault(key.bundle, {})[key.variant] = reliability_record(answers)
    return records


def _whole_answers(measured: Measured) -> Iterator[tuple[Key, Answers]]:
    """Yield the answers without early exits. Those with them are in the rows."""
    return ((key, answers) for key, answers in measured.answers.items() if not key.early_exit)


def samples(measured: Measured) -> bytes:
    """Return samples.json.gz: what every lane recorded, and every image's top-1."""
    content = {
        "schema": SCHEMA,
        "lanes": [_lane_samples(lane) for lane in measured.lanes],
        "decode_ms": list(measured.lanes[0].frames.decode_ms),
        "answers": [_answer_samples(key, answers) for key, answers in measured.answers.items()],
    }
    return gzip.compress(json.dumps(content).encode(), mtime=0)


def _lane_samples(lane: BenchmarkLane) -> dict[str, Any]:
    """Return every time by stage, the first sample of each block, and the readings at its end."""
    times = lane.times.samples_ms.items()
    return {
        **asdict(lane.key),
        "mode": lane.mode.name,
        "batch": lane.mode.batch,
        "ms": {stage: [round(ms, 5) for ms in samples_ms] for stage, samples_ms in times},
        "block_starts": lane.blocks,
        "clocks_mhz": lane.clocks_mhz,
        "watts": [None if reading is None else round(reading[0], 4) for reading in lane.watts],
        "gpu_mhz": lane.gpu_mhz,
        "hottest_c": [reading.hottest_c for reading in lane.readings],
    }


def _answer_samples(key: Key, answers: Answers) -> dict[str, Any]:
    """Return the true and the named class of every image."""
    return {
        **asdict(key),
        "images": [item.path.name for item in answers.items],
        "labels": answers.labels.tolist(),
        "top1": answers.ranked[:, 0].tolist(),
    }
