"""What recovers accuracy after quantization: each method on real data, paired with plain PTQ.

    python benchmarks/cpu/recovery.py run BUNDLE DATA WORK [--methods ptq bias-correction ...]
    python benchmarks/cpu/recovery.py table

`run` calibrates BUNDLE (256 training images, max) with each method and measures the files on the
whole test split: the CPU file as with VNNI, as without (FINEDGE_CPU_INT8=saturating), and the
TensorRT file in ONNX Runtime. BUNDLE is not changed. WORK keeps the preprocessed images and the
logits. A row that is there is not made again: benchmarks/results/recovery/BUNDLE-METHOD.json.

Equalisation across layers (Nagel et al. 2019) was measured with commit 743d1d2 and deleted: it does
not pay. EfficientNet-Lite0 has 2 pairs of layers without a ReLU6 between them, and the mean KL
divergence rose from 0.0163 to 0.0178 (grocery-plain-bicubic, CPU file).

QAT for 15 steps (480 images) does not pay: its CPU file agrees with FP32 on 95.3 % with VNNI, bias
correction alone on 97.8 %. Longer trainings were not measured.

Times are CPU seconds of one method beyond plain PTQ, with one thread (OMP_NUM_THREADS=1 and one
core: taskset).
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tyro
from numpy.typing import NDArray
from tyro.conf import Positional

from finedge.bundle import CPU_FILE, FLOAT_FILE, PORTABLE_FILE, Bundle
from finedge.calib.bias.bias_correction import correct_biases, float_means
from finedge.calib.int8_files import source_file
from finedge.calib.quantizers.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantizers.tensorrt import quantize_for_tensorrt
from finedge.calib.ranges.calibration_set import CalibrationSet, draw_sample
from finedge.calib.ranges.calibration_table import CalibrationTable
from finedge.calib.ranges.observe import collect_ranges
from finedge.files import write_text
from finedge.graph.metadata import with_metadata
from finedge.graph.onnx_file import read_model
from finedge.image import read_image
from finedge.measure import mcnemar
from finedge.preprocess import preprocess
from finedge.runtime.backend import SessionOptions
from finedge.runtime.evaluate.labelled import bundle_dataset
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.ort.int8_products import OVERRIDE
from finedge.subset import balanced_order

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results/recovery"
BATCH = 16
QAT_IMAGES = 480
# name -> file, and what FINEDGE_CPU_INT8 says
RUNS = {
    "cpu": (CPU_FILE, "exact"),
    "cpu without VNNI": (CPU_FILE, "saturating"),
    "tensorrt": (PORTABLE_FILE, "exact"),
}
Models = dict[str, onnx.ModelProto]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Work:
    """A bundle, its images, and the folder that keeps what was computed."""

    bundle: Bundle
    data: Path
    folder: Path

    @cached_property
    def sample(self) -> CalibrationSet:
        """The calibration images, as `finedge calibrate` draws them."""
        return draw_sample(bundle_dataset(self.bundle, self.data))

    @cached_property
    def batches(self) -> list[NDArray[np.uint8]]:
        """The calibration images, uint8 [16, side, side, 3] each."""
        return list(self.sample.batches(self.bundle.spec.preprocess, size=BATCH))

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The float model that INT8 is made of."""
        return read_model(self.bundle.file(source_file(self.bundle)))

    @cached_property
    def table(self) -> CalibrationTable:
        """The ranges of all calibration images, method max."""
        return collect_ranges(self.model, self.batches)

    @cached_property
    def test(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The test split: uint8 [N, side, side, 3], and the labels."""
        items = bundle_dataset(self.bundle, self.data).split("test")
        path = self.folder / "test.npy"
        if not path.is_file():
            frames = [preprocess(read_image(i.path), self.bundle.spec.preprocess) for i in items]
            np.save(path, np.stack(frames))
        return np.load(path, mmap_mode="r"), np.array([i.label for i in items])


def quantized(work: Work, model: onnx.ModelProto, table: CalibrationTable) -> Models:
    """Return both INT8 files."""
    return {
        PORTABLE_FILE: quantize_for_tensorrt(model, table)[0],
        CPU_FILE: quantize_for_onnxruntime(model, table)[0],
    }


def ptq(work: Work) -> Models:
    """Return both files as `finedge calibrate` writes them."""
    return quantized(work, work.model, work.table)


def bias_correction(work: Work) -> Models:
    """Return the files of plain PTQ with corrected biases."""
    target = float_means(work.model, work.batches)
    return {name: correct_biases(m, target)[0] for name, m in ptq(work).items()}


def qat(work: Work) -> Models:
    """Return the files after 15 steps of QAT, with corrected biases; the run is beside the bundle.

    A whole epoch takes 250 CPU seconds: more than the machine had.
    """
    from finedge.calib.options import QatOptions
    from finedge.calib.qat.training import fine_tune
    from finedge.train.run import load_run

    path = work.bundle.path.parent / f"{work.bundle.path.stem}-run"
    options = QatOptions(qat=path, qat_epochs=1)
    items = balanced_order(bundle_dataset(work.bundle, work.data).split("train"), seed=1)
    places = quantize_for_tensorrt(work.model, work.table)[0]
    run = load_run(path)
    tuned = fine_tune(work.model, places, run=run, items=items[:QAT_IMAGES], options=options)
    table = collect_ranges(tuned.model, work.batches)
    target = float_means(tuned.model, work.batches)
    models = quantized(work, tuned.model, table)
    return {name: correct_biases(m, target)[0] for name, m in models.items()}


METHODS: dict[str, Callable[[Work], Models]] = {
    "ptq": ptq,
    "bias-correction": bias_correction,
    "qat": qat,
}


def run(
    bundle: Positional[Path],
    data: Positional[Path],
    work: Positional[Path],
    *,
    methods: tuple[str, ...] = (),
    kinds: tuple[str, ...] = tuple(RUNS),
) -> None:
    """Measure the methods that have no row yet, in some of `RUNS`."""
    logging.disable(logging.WARNING)
    folder = work / bundle.stem
    folder.mkdir(parents=True, exist_ok=True)
    job = Work(Bundle.load(bundle), data, folder)
    for method in methods or tuple(METHODS):
        path = RESULTS / f"{bundle.stem}-{method}.json"
        if not path.is_file():
            row = measured(job, method, kinds=kinds)
            write_text(path, json.dumps(row, indent=1) + "\n")
            print(path, json.dumps(row["files"]), flush=True)


def measured(work: Work, method: str, *, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Return the row of one method."""
    _ = work.table  # its time is that of every method
    start = time.process_time()
    models = METHODS[method](work)
    seconds = time.process_time() - start
    exact = _logits(work, FLOAT_FILE, work.bundle, kind="fp32", products="exact")
    with tempfile.TemporaryDirectory() as place:
        files = {
            name: with_metadata(model, work.bundle.spec).SerializeToString()
            for name, model in models.items()
        }
        trial = Bundle.create(
            Path(place) / "trial.finedge", work.bundle.spec, files=files, provenance={}
        )
        rows = {}
        for kind in kinds:
            file, products = RUNS[kind]
            name = f"{method}-{kind.replace(' ', '-')}"
            logits = _logits(work, file, trial, kind=name, products=products)
            base = work.folder / f"ptq-{kind.replace(' ', '-')}.npy"
            rows[kind] = {
                **compared(logits, exact, work.test[1]),
                "against_ptq": paired(logits, np.load(base), work.test[1]),
            }
    return {
        "bundle": work.bundle.path.stem,
        "method": method,
        "images": len(work.sample.items),
        "cpu_seconds": round(seconds, 1),
        "files": rows,
        "cpu": cpu_name(),
        "onnxruntime": onnxruntime.__version__,
        "commit": _commit(),
    }


def compared(logits: Logits, exact: Logits, labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return accuracy, agreement and mean KL divergence of INT8 scores from those of FP32."""
    p, q = _log_softmax(exact), _log_softmax(logits)
    return {
        "n": len(labels),
        "top1_fp32": round(float((exact.argmax(1) == labels).mean()), 4),
        "top1": round(float((logits.argmax(1) == labels).mean()), 4),
        "agreement": round(float((logits.argmax(1) == exact.argmax(1)).mean()), 4),
        "kl": round(float((np.exp(p) * (p - q)).sum(1).mean()), 5),
        "against_fp32": paired(logits, exact, labels),
    }


def paired(logits: Logits, base: Logits, labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return how many images only one of two classifiers labels right, and McNemar's p."""
    right, other = logits.argmax(1) == labels, base.argmax(1) == labels
    gained, lost = int((right & ~other).sum()), int((other & ~right).sum())
    return {"gained": gained, "lost": lost, "p": round(mcnemar(gained, lost), 4)}


def table() -> None:
    """Print all rows."""
    print("| bundle | method | file | FP32 | INT8 | agreement | KL | against PTQ | p | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for path in sorted(RESULTS.glob("*.json")):
        row = json.loads(path.read_text())
        for kind, numbers in row["files"].items():
            pair = numbers["against_ptq"]
            cells = (
                row["bundle"],
                row["method"],
                kind,
                f"{numbers['top1_fp32']:.2%}",
                f"{numbers['top1']:.2%}",
                f"{numbers['agreement']:.2%}",
                f"{numbers['kl']:.4f}",
                f"+{pair['gained']} -{pair['lost']}",
                f"{pair['p']:.2f}",
                f"{row['cpu_seconds']:.0f}",
            )
            print(f"| {' | '.join(cells)} |")


def _logits(work: Work, file: str, bundle: Bundle, *, kind: str, products: str) -> Logits:
    path = work.folder / f"{kind}.npy"
    if not path.is_file():
        os.environ[OVERRIDE] = products
        session = OnnxRuntimeBackend(SessionOptions(threads=1)).open_file(bundle, file)
        main, frames = bundle.spec.main.name, work.test[0]
        parts = [session(frames[i : i + BATCH])[main] for i in range(0, len(frames), BATCH)]
        np.save(path, np.concatenate(parts))
    logits: Logits = np.load(path)
    return logits


def _log_softmax(scores: Logits) -> NDArray[np.float64]:
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"run": run, "table": table})
