"""Early exit on real images: threshold against exits, accuracy and mean time, in INT8 on the CPU.

    python benchmarks/early_exit.py curve BUNDLE PLAIN --data DIR --work WORK --name ROW
    python benchmarks/early_exit.py benchmark BUNDLE PLAIN --data DIR --work WORK --name ROW
    python benchmarks/early_exit.py train --data DIR --work WORK
    python benchmarks/early_exit.py table

`curve` takes a bundle with local heads and the plain bundle on the same images, both calibrated. It
keeps the scores in WORK, so a second call only measures times again. For each local head alone: the
model is cut there, and for each threshold the share of exits, the accuracy on test, the multiply-
accumulates and the mean CPU time. The threshold that `calibrate` chooses is marked. Times are CPU
milliseconds of one thread, without the preprocessing, medians of interleaved shuffled blocks. Each
is that of a session as `finedge classify` calls it, with its checks. `against_plain` is the paired
change of top-1 from the plain bundle.

`benchmark` is `finedge benchmark PLAIN BUNDLE --early-exit` on one thread, with its CPU time
as the clock: the wall time of a busy machine says nothing. It includes the preprocessing. Its
rows are in benchmarks/results/early_exit/benchmark/ROW.json.

`train` is experiment E2: heads trained through the backbone. It takes hours on a shared CPU and
continues where it stopped.

Rows are in benchmarks/results/early_exit/ROW.json.
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tyro
from numpy.typing import NDArray

from finedge.bundle import CPU_FILE, FLOAT_FILE, Bundle
from finedge.calib.held_out.confidence import fit_temperature
from finedge.calib.held_out.exits import allowed_losses, exit_threshold
from finedge.data import Item
from finedge.early_exit import ExitRule
from finedge.export.segments import count_segments
from finedge.files import write_text
from finedge.graph.inlining import inline
from finedge.graph.onnx_file import read_model
from finedge.graph.segments import cut
from finedge.image import read_image
from finedge.measure import mcnemar, wilson95
from finedge.ops import softmax
from finedge.preprocess import preprocess_batch
from finedge.runtime.backend import SessionOptions
from finedge.runtime.early_exit.session import EarlyExitSession
from finedge.runtime.evaluate.labelled import bundle_dataset
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.runtime.ort.segments import open_segment

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/early_exit"
THRESHOLDS = (0.99, 0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
LOSSES = (0.0, 0.005, 0.01, 0.02)
BATCH = 8
OPTIONS = SessionOptions(threads=1)
Scores = dict[str, NDArray[Any]]
log = logging.getLogger("early_exit")


def curve(
    bundle: tyro.conf.Positional[Path],
    plain: tyro.conf.Positional[Path],
    *,
    data: Path,
    work: Path,
    name: str,
    blocks: int = 40,
) -> None:
    """Measure one bundle and write its row.

    Args:
        bundle: with local heads and INT8.
        plain: the same images without local heads, INT8.
        data: the images.
        work: a folder for the scores.
        name: of the row.
        blocks: of the measurement of times, each of 8 frames.
    """
    opened, other = Bundle.load(bundle), Bundle.load(plain)
    work.mkdir(parents=True, exist_ok=True)
    scores = {
        split: kept_scores(opened, split, data=data, file=work / f"{name}-{split}.npz")
        for split in ("val", "test")
    }
    of_plain = kept_scores(other, "test", data=data, file=work / f"plain-{other.digest()[:8]}.npz")
    exits = [output.name for output in opened.spec.outputs if output.role == "local"]
    scores["test"]["plain"] = of_plain[other.spec.main.name]
    times = cpu_times(opened, other, exits, blocks=blocks)
    macs = count_segments(read_model(opened.file(FLOAT_FILE)), exits)
    row = {
        "name": name,
        "bundle": opened.name,
        "model": opened.spec.model,
        "images": {split: len(s["labels"]) for split, s in scores.items()},
        "whole": {**accuracy(scores["test"], opened.spec.main.name), "cpu_ms": times["whole"]},
        "plain": {**accuracy(of_plain, other.spec.main.name), "cpu_ms": times["plain"]},
        "macs": macs.macs,
        "exits": [
            exit_row(
                scores,
                one.output,
                main=opened.spec.main.name,
                times=times,
                share=one.macs / macs.macs,
            )
            for one in macs.exits
        ],
        "cpu": cpu_name(),
        "versions": {"onnxruntime": onnxruntime.__version__},
        "commit": commit(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_text(RESULTS / f"{name}.json", json.dumps(row, indent=1))
    table()


def kept_scores(bundle: Bundle, split: str, *, data: Path, file: Path) -> Scores:
    """Return every output on a split and "labels"; they are read from `file` if it is there."""
    if not file.is_file():
        items = bundle_dataset(bundle, data).splits[split]
        arrays = {**outputs_of(bundle, items), "labels": np.array([i.label for i in items])}
        np.savez(file, **arrays)
    with np.load(file) as stored:
        return dict(stored)


def outputs_of(bundle: Bundle, items: tuple[Item, ...]) -> Scores:
    """Return every output of the INT8 model on images, [n, classes] by name."""
    session = OnnxRuntimeBackend(OPTIONS).open(bundle, variant="int8")
    parts = []
    for start in range(0, len(items), BATCH):
        frames = [read_image(item.path) for item in items[start : start + BATCH]]
        parts.append(session(preprocess_batch(frames, bundle.spec.preprocess, count=len(frames))))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def accuracy(scores: Scores, main: str) -> dict[str, Any]:
    """Return top1 and wilson95 of an output."""
    right = scores[main].argmax(axis=1) == scores["labels"]
    low, high = wilson95(int(right.sum()), len(right))
    return {"top1": round(float(right.mean()), 4), "wilson95": [round(low, 4), round(high, 4)]}


def exit_row(
    scores: dict[str, Scores], output: str, *, main: str, times: dict[str, float], share: float
) -> dict[str, Any]:
    """Return the curve of one exit: fitted on val, measured on test."""
    val, test = scores["val"], scores["test"]
    temperature = fit_temperature(val[output], val["labels"])
    points = [(None, threshold) for threshold in THRESHOLDS]
    lost = rightly(val, main) & ~rightly(val, output)
    for loss in LOSSES:
        allowed = allowed_losses(loss, len(lost))
        points.append(
            (loss, exit_threshold(sureness(val, output, temperature), lost, allowed=allowed))
        )
    head = times[f"{output} left"]
    rest = times[f"{output} stayed"] - head
    return {
        "output": output,
        "macs_share": round(share, 4),
        "temperature": round(temperature, 4),
        "head": {split: accuracy(scores[split], output)["top1"] for split in scores},
        "cpu_ms": {"first": head, "rest": round(rest, 4)},
        "curve": [
            {
                "exit_loss": loss,
                "threshold": threshold,
                "val": point(val, output, main, threshold=threshold, temperature=temperature),
                "test": (
                    at := point(test, output, main, threshold=threshold, temperature=temperature)
                ),
                "mean_cpu_ms": round(head + (1 - at["share"]) * rest, 4),
                "mean_macs_share": round(share + (1 - at["share"]) * (1 - share), 4),
            }
            for loss, threshold in points
        ],
    }


def point(
    scores: Scores, output: str, main: str, *, threshold: float | None, temperature: float
) -> dict[str, Any]:
    """Return what a threshold does on a split."""
    leaves = sureness(scores, output, temperature) >= (2.0 if threshold is None else threshold)
    whole, head = rightly(scores, main), rightly(scores, output)
    answers = np.where(leaves, head, whole)
    plain = (
        {"against_plain": paired(rightly(scores, "plain"), answers)} if "plain" in scores else {}
    )
    return {
        "share": round(float(leaves.mean()), 4),
        "top1": round(float(answers.mean()), 4),
        **paired(whole, answers),
        **plain,
    }


def paired(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, float]:
    """Return the right answers that are lost and gained, and McNemar's p."""
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    return {"lost": lost, "gained": gained, "mcnemar_p": round(mcnemar(lost, gained), 4)}


def sureness(scores: Scores, output: str, temperature: float) -> NDArray[np.floating]:
    """Return the top probability of a head on each image."""
    top: NDArray[np.floating] = softmax(scores[output].astype(np.float64) / temperature).max(axis=1)
    return top


def rightly(scores: Scores, output: str) -> NDArray[np.bool_]:
    """Return whether an output names the true class of each image."""
    return np.equal(scores[output].argmax(axis=1), scores["labels"])


def cpu_times(bundle: Bundle, plain: Bundle, exits: list[str], *, blocks: int) -> dict[str, float]:
    """Return median CPU ms of one frame: whole, plain, and of each exit alone.

    A frame has "left" at the exit, or "stayed": then both segments run.
    """
    rng = np.random.default_rng(0)
    size = bundle.spec.input
    frames = rng.integers(0, 256, (8, 1, size.height, size.width, 3), dtype=np.uint8)
    calls = dict(candidates(bundle, plain, exits, frames))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for block in range(blocks + 1):
        for name in random.Random(block).sample(sorted(calls), len(calls)):
            for frame in range(len(frames)):
                start = time.thread_time_ns()
                calls[name](frame)
                if block:  # the first one warms up
                    samples[name].append((time.thread_time_ns() - start) / 1e6)
    return {name: round(statistics.median(ms), 4) for name, ms in samples.items()}


def candidates(
    bundle: Bundle, plain: Bundle, exits: list[str], frames: NDArray[np.uint8]
) -> Iterator[tuple[str, Callable[[int], object]]]:
    """Yield a name and a call that classifies one of the frames."""
    backend = OnnxRuntimeBackend(OPTIONS)
    for name, opened in (("whole", bundle), ("plain", plain)):
        session = backend.open(opened, variant="int8")
        yield name, lambda i, session=session: session(frames[i])
    model = inline(onnx.load_model(bundle.file(CPU_FILE)))
    for output in exits:
        segments = tuple(
            open_segment(part.SerializeToString(), name=output, options=OPTIONS)
            for part in cut(model, [output])
        )
        for name, threshold in (("left", 0.0), ("stayed", None)):
            rules = (ExitRule(output, 1.0, threshold),)
            early = EarlyExitSession(segments, bundle, rules=rules, info=session.info)
            yield f"{output} {name}", lambda i, session=early: session(frames[i])


def table() -> None:
    """Print every row that is there."""
    for file in sorted(RESULTS.glob("*.json")):
        row = json.loads(file.read_text())
        print(f"{row['name']}: whole {row['whole']}, plain {row['plain']}")
        for one in row["exits"]:
            print(f"  {one['output']}: {one['macs_share']:.1%} of the MACs, head {one['head']}")
            for at in one["curve"]:
                test, loss = at["test"], at["exit_loss"]
                p = test.get("against_plain", {}).get("mcnemar_p", "unknown")
                label = "" if loss is None else f"  <- calibrate --exit-loss {loss:g}"
                print(
                    f"    {at['threshold'] or 'never'}: {test['share']:6.1%} leave, top-1 "
                    f"{test['top1']:.1%} (-{test['lost']} +{test['gained']}), "
                    f"{at['mean_cpu_ms']:.2f} CPU ms, {at['mean_macs_share']:.1%} MACs, "
                    f"against plain p {p}{label}"
                )


def benchmark(
    bundle: tyro.conf.Positional[Path],
    plain: tyro.conf.Positional[Path],
    *,
    data: Path,
    work: Path,
    name: str,
    duration: str = "10s",
) -> None:
    """Run `finedge benchmark` on CPU time, and write its rows."""
    patched = "import sys, time; time.perf_counter = time.thread_time; from finedge.cli import main"
    out = work / f"{name}-benchmark"
    command = [
        *(sys.executable, "-c", f"{patched}; sys.exit(main(sys.argv[1:]))"),
        *("benchmark", str(plain), str(bundle), "--data", str(data), "--early-exit"),
        *("--variants", "int8", "--backend", "onnxruntime", "--threads", "1"),
        *("--duration", duration, "--out", str(out)),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report = json.loads((out / "report.json").read_text())
    kept = {key: report[key] for key in ("made", "rows", "comparisons", "exits")}
    row = {"name": name, "clock": "CPU time of the thread", "cpu": cpu_name(), **kept}
    folder = RESULTS / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{name}.json", json.dumps({**row, "commit": commit()}, indent=1))


def train(*, data: Path, work: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Train E2: modules through the backbone, one frozen stage, 16 epochs, one thread.

    A run that is there is continued. The head at stride 16 is also that of `modules` 2: it is the
    first of the last two stages.
    """
    for seed in seeds:
        run = work / f"e2-s{seed}"
        command = [
            *("finedge", "train", "--out", str(run)),
            *("--data", str(data), "--model", "attend_rectify", "--recipe", "lite0_fast"),
            *("--backbone", "efficientnet_lite0", "--seed", str(seed), "--epochs", "16"),
            *("--freeze", "1", "--option", "kernel_size=1", "--option", "modules=2"),
        ]
        if (run / "run.json").is_file():
            command = ["finedge", "train", "--out", str(run), "--resume"]
        subprocess.run(["nice", "-n", "19", sys.executable, "-m", *command], check=True)


def commit() -> str:
    """Return the commit that measured."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tyro.extras.subcommand_cli_from_dict(
        {"curve": curve, "benchmark": benchmark, "train": train, "table": table}
    )
