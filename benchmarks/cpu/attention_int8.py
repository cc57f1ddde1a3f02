"""What INT8 products of attention, pooled keys and the frame's bytes cost and change, on the CPU.

usage: python -m benchmarks.cpu.attention_int8 speed [--threads N] [--realtime]
       python -m benchmarks.cpu.attention_int8 table
       python -m benchmarks.cpu.attention_int8 accuracy BUNDLE DATA

`speed`: plain and CNL on ResNet-50 at 224, random weights with settled BatchNorm statistics. Read
the milliseconds, not the answers. All candidates take turns in shuffled rounds. A round is a row:
for each candidate the median CPU and wall time of some frames, after one. A second call adds the
rounds that are missing. `table` prints medians over the rounds.
`accuracy`: a trained bundle in every mode of attention, on the test split, with exact products.
The rows go to benchmarks/results/attention_int8/.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray

from benchmarks.realtime import realtime as priority
from finedge.bundle import Bundle
from finedge.calib.decision.compare import Decision
from finedge.calib.decision.decision_set import DecisionImages
from finedge.calib.int8_files import calibrate_model, cpu_model, float_model
from finedge.calib.plan import QuantizationPlan
from finedge.calib.quantizers.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantizers.report import AttentionMode
from finedge.calib.ranges.calibration_set import draw_sample
from finedge.calib.ranges.observe import collect_ranges
from finedge.export.cost import attention_costs
from finedge.export.passes import absorb
from finedge.export.to_onnx import to_onnx
from finedge.runtime.evaluate.labelled import bundle_dataset
from finedge.spec import Input, Preprocess, Spec
from finedge.train.models import build_model

RESULTS = Path(__file__).parents[1] / "results" / "attention_int8"
SIDE = 224
CLOCKS = ("cpu_ms", "wall_ms")
FRAMES = 3  # in a burst, after one that brings the weights into the caches
COMPLETE = "complete"
MODES: tuple[AttentionMode, ...] = ("float", "scores", "int8")
# The models of `speed`: name, options, whether attention absorbs its projections.
FORMS: dict[str, tuple[str, Mapping[str, Any], bool]] = {
    "plain": ("plain", {}, False),
    "cnl projected": ("cnl", {}, False),
    "cnl absorbed": ("cnl", {}, True),
    "cnl pooled keys": ("cnl", {"pooled_keys": True}, True),
}


def speed(threads: int, rounds: int, models: Path, *, realtime: bool) -> None:
    """Write a row for each round that is missing: the milliseconds of every candidate."""
    if not (models / COMPLETE).is_file():
        write_models(models)
    frames = smooth_frames()[:1]
    rows = [row for row in read_rows("speed") if row["threads"] == threads]
    sessions = {path.stem: session(path, threads) for path in sorted(models.glob("*.onnx"))}
    rng = np.random.default_rng(len(rows))
    for number in range(len(rows), rounds):
        times = {}
        with priority(realtime):
            for name in rng.permutation(list(sessions)):
                times[str(name)] = burst(sessions[name], frames)
        clocks = {clock: {n: times[n][i] for n in sessions} for i, clock in enumerate(CLOCKS)}
        write({"part": "speed", "threads": threads, "round": number, **clocks})


def burst(opened: onnxruntime.InferenceSession, frames: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the median CPU and wall milliseconds of some frames, after one."""
    feed = {"frames": frames}
    opened.run(None, feed)
    cpu, wall = [], []
    for _ in range(FRAMES):
        before, start = time.process_time(), time.perf_counter()
        opened.run(None, feed)
        cpu.append(1e3 * (time.process_time() - before))
        wall.append(1e3 * (time.perf_counter() - start))
    return round(float(np.median(cpu)), 3), round(float(np.median(wall)), 3)


def table() -> None:
    """Print the medians over the rounds, and over plain of the same round, as Markdown."""
    rows = read_rows("speed")
    for threads in sorted({row["threads"] for row in rows}):
        same = [row for row in rows if row["threads"] == threads]
        print(f"\n{len(same)} rounds, {threads} thread(s), {same[0]['cpu']}\n")
        print("| file | CPU ms | over plain | wall ms | over plain |\n|" + "---|" * 5)
        for name in same[0]["cpu_ms"]:
            cells = [cell for clock in CLOCKS for cell in medians(name, same, clock)]
            print(f"| {name} | {' | '.join(cells)} |")


def medians(name: str, rows: Sequence[Mapping[str, Any]], clock: str) -> tuple[str, str]:
    """Return a candidate's median time, and the median of its time over plain, less 1."""
    base = "plain fp32" if name.endswith("fp32") else "plain int8"
    own = np.array([row[clock][name] for row in rows])
    over = np.median(own / np.array([row[clock][base] for row in rows])) - 1
    return f"{np.median(own):.2f}", "" if name == base else f"{over:+.1%}"


def write_models(folder: Path) -> None:
    """Write every candidate; it takes longer than to time them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in candidates(smooth_frames()):
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    (folder / COMPLETE).touch()


def candidates(frames: NDArray[np.uint8]) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield every float and INT8 model to time."""
    for form, (name, options, absorbed) in FORMS.items():
        model = exported(name, options, absorbed=absorbed)
        yield f"{form} fp32", model
        table = collect_ranges(model, [frames])
        for mode in MODES if name == "cnl" else MODES[:1]:
            suffix = f"int8, attention {mode}" if name == "cnl" else "int8"
            yield f"{form} {suffix}", quantize_for_onnxruntime(model, table, attention=mode)[0]


def exported(name: str, options: Mapping[str, Any], *, absorbed: bool) -> onnx.ModelProto:
    """Return ResNet-50 with random weights; every response of CNL counts."""
    torch.manual_seed(0)
    model = build_model(name, num_classes=200, backbone="resnet50", **options)
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over the batches below
        if path.startswith("cross_layer") and isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
        if path.startswith("cross_layer") and isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        model.train()(torch.randn(3, 3, SIDE, SIDE))
    labels = tuple(map(str, range(200)))
    spec = Spec(name, "resnet50", labels, Preprocess(256, SIDE), Input(SIDE, SIDE), model.outputs)
    graph, taps = to_onnx(model.eval(), spec)
    nodes = frozenset(cost.node for cost in attention_costs(graph)) if absorbed else frozenset()
    return ir.to_proto(absorb(graph, nodes, keep={tap.tensor for tap in taps}))


def smooth_frames() -> NDArray[np.uint8]:
    """Return four frames of noise at four scales, uint8 [4, 224, 224, 3]."""
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 255, (n, n, 3), np.uint8) for n in (7, 14, 28, 56))
    return np.stack([np.kron(x, np.ones((SIDE // len(x),) * 2 + (1,), np.uint8)) for x in noise])


def session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a model on some threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model, options, providers=providers)


def accuracy(bundle: Bundle, data: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each mode: agreement with the float model on the test split."""
    from finedge.calib.decision.decision_set import load_decision_images

    dataset = bundle_dataset(bundle, data)
    sample = draw_sample(dataset)
    calibrated = calibrate_model(float_model(bundle), bundle.spec, sample=sample, methods=("max",))
    test = type(sample)(tuple(dataset.splits["test"]), ())
    images: DecisionImages = load_decision_images(test, bundle.spec.preprocess)
    decision = Decision(calibrated.model, bundle.spec, images)
    for mode in MODES:
        comparison = decision.compare(cpu_model(calibrated, QuantizationPlan(attention=mode)))
        numbers = {**comparison.to_json(), "drop": comparison.drop, "p": comparison.p_value}
        yield {"part": "accuracy", "bundle": bundle.path.name, "attention": mode, **numbers}


def read_rows(part: str) -> list[dict[str, Any]]:
    """Return the rows of a part so far."""
    path = RESULTS / f"{part}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def write(row: Mapping[str, Any]) -> None:
    """Add a row, with the machine and the versions, to the results."""
    from finedge.runtime.machine.cpu import cpu_name

    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    versions = {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    full = {**row, "cpu": cpu_name(), "versions": versions, "commit": commit}
    with (RESULTS / f"{row['part']}.jsonl").open("a") as file:
        file.write(json.dumps(full) + "\n")
    print(json.dumps(full))


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    timing = parts.add_parser("speed")
    timing.add_argument("--threads", type=int, default=1)
    timing.add_argument("--rounds", type=int, default=20)
    timing.add_argument("--models", type=Path, default=Path("build/attention_int8"))
    timing.add_argument("--realtime", action="store_true", help="as root: others wait")
    parts.add_parser("table")
    answers = parts.add_parser("accuracy")
    answers.add_argument("bundle", type=Path)
    answers.add_argument("data", type=Path)
    options = parser.parse_args()
    if options.part == "speed":
        speed(options.threads, options.rounds, options.models, realtime=options.realtime)
    elif options.part == "table":
        table()
    else:
        for row in accuracy(Bundle.load(options.bundle), options.data):
            write(row)


if __name__ == "__main__":
    main()
