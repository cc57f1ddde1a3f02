"""A report.json as a benchmark of two models writes it, with made-up numbers."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from finedge.measure import wilson95

N = 2485

# The device's base install has no jinja2: `finedge report` names the [report] extra there.
collect_ignore_glob = [] if importlib.util.find_spec("jinja2") else ["test_*.py"]


def sample_row(
    bundle: str,
    variant: str,
    *,
    p50: float | None,
    right: int | None,
    change: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    share = None if right is None else right / N
    compared = change is not None
    return {
        "bundle": bundle,
        "model": bundle,
        "backbone": "resnet50",
        "variant": variant,
        "file": "model.int8.cpu.onnx" if variant == "int8" else f"model.{variant}.onnx",
        "file_bytes": 25_600_000 if variant == "int8" else 102_400_000,
        "digest": "0" * 64,
        "backend": "onnxruntime",
        "device": "A made-up CPU",
        "precision": variant,
        "batch": 1,
        "mode": "single-stream",
        "n": 240,
        "p50_ms": p50,
        "p90_ms": p50 and p50 * 1.05,
        "p95_ms": p50 and p50 * 1.1,
        "p99_ms": None,
        "p50_bounds99_ms": p50 and [p50 * 0.99, p50 * 1.01],
        "max_ms": (p50 or 10) * 1.4,
        "engine_p50_ms": p50 and p50 - 2.2,
        "stages_p50_ms": {
            "decode": 2.4,
            "preprocess": 2.1,
            "infer": p50 and p50 - 2.2,
            "post": 0.1,
        },
        "images_per_second": 1000 / (p50 or 10),
        "top1": share,
        "top5": share and min(1.0, share + 0.12),
        "wilson95": None if right is None else list(wilson95(right, N)),
        "accuracy_n": N if right else 0,
        "accuracy_note": "" if right else "not measured: no labelled data",
        "top1_change": change / N if compared else None,
        "top1_change95": [(change - 12) / N, (change + 12) / N] if compared else None,
        "mcnemar_p": 0.4 if compared else None,
        "flips": 41 if compared else None,
        "gained": 12 if compared else None,
        "lost": 12 - change if compared else None,
        "clocks": {"before_mhz": None, "after_mhz": None, "drop": "unknown"},
        "throttled": "unknown",
        "valid": True,
        "invalid_reasons": [],
        **more,
    }


def sample_report(
    first: str = "plain", second: str = "cnl", label: str = "Golden-Delicious"
) -> dict[str, Any]:
    rows = [
        sample_row(first, "fp32", p50=93.4, right=2010),
        sample_row(first, "int8", p50=31.9, right=2003, change=-7),
        sample_row(second, "fp32", p50=104.8, right=2026),
        sample_row(
            second,
            "int8",
            p50=39.2,
            right=2017,
            change=-9,
            valid=False,
            invalid_reasons=["p99 was asked for: needs 662 queries, has 240"],
        ),
    ]
    offline = [
        {
            **r,
            "mode": "offline",
            "batch": 8,
            "p50_ms": r["p50_ms"] * 7,
            "valid": True,
            "invalid_reasons": [],
        }
        for r in rows
    ]
    between = {
        "top1_change": 16 / N,
        "top1_change95": [-10 / N, 42 / N],
        "mcnemar_p": 0.25,
        "flips": 300,
        "gained": 110,
        "lost": 94,
    }
    comparisons = [
        {
            "first": first,
            "second": second,
            "variant": "fp32",
            "n": N,
            "p50_ms": [93.4, 104.8],
            **between,
        }
    ]
    classes = [
        {
            "label": label if i == 0 else f"class-{i}",
            "n": 30,
            "top1": {"fp32": 0.8, "int8": 0.8 + (i - 18) / 60},
            "change": (i - 18) / 60,
            "flips": 2,
            "mcnemar_p": 0.5,
        }
        for i in range(24)
    ]
    trusted = {
        "ece": 0.021,
        "ece_uncalibrated": 0.094,
        "bins": [[0, 0.0, 0.0]] * 12 + [[400, 0.83, 0.8], [0, 0.0, 0.0], [N - 400, 0.97, 0.96]],
    }
    method = {
        "duration_s": 10.0, "warm_up_s": 2.0, "blocks": 15, "rewarm_s": 0.05, "block_s": 0.667,
        "frames": 256, "frames_from": "images of the test split",
        "threads": 1, "split": "test", "gate": None, "percentiles": [99.0],
    }  # fmt: skip
    environment = {
        "platform": "Linux",
        "cpu": "A made-up CPU",
        "cpu_flags": ["avx2", "avx512_vnni"],
        "versions": {"onnxruntime": "1.31.1"},
        "commit": "0" * 40,
    }
    return {
        "schema": 1,
        "made": "2026-11-22T01:20:00Z",
        "environment": environment,
        "method": method,
        "rows": rows + offline,
        "comparisons": comparisons,
        "per_class": {first: classes, second: classes[16:20]},
        "reliability": {first: {"fp32": trusted, "int8": {**trusted, "ece": 0.094}}},
    }


@pytest.fixture
def sample() -> SimpleNamespace:
    """`sample.report(...)` and `sample.row(...)`."""
    return SimpleNamespace(report=sample_report, row=sample_row)
