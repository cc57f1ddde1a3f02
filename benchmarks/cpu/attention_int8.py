"""What INT8 products of attention, pooled keys and the frame's bytes cost and change, on the CPU.

usage: python benchmarks/cpu/attention_int8.py speed [--threads N]
       python benchmarks/cpu/attention_int8.py accuracy BUNDLE DATA

`speed`: plain and CNL on ResNet-50 at 224, random weights with settled BatchNorm statistics. Read
the milliseconds, not the answers. All candidates run interleaved in shuffled rounds; the times are
medians of CPU time and wall time for one frame.
`accuracy`: a trained bundle in every mode of attention, on the test split, with exact products.
The rows go to benchmarks/results/attention_int8/.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.calib.calibration_set import draw_sample
from finedge.calib.decision import Decision
from finedge.calib.decision_set import DecisionImages
from finedge.calib.int8_files import calibrate_model, cpu_model, float_model
from finedge.calib.observe import collect_ranges
from finedge.calib.onnxruntime import quantize_for_onnxruntime
from finedge.calib.plan import QuantizationPlan
from finedge.export.cost import attention_costs
from finedge.export.passes import absorb
from finedge.export.to_onnx import to_onnx
from finedge.runtime.evaluate.labelled import bundle_dataset
from finedge.spec import Input, Preprocess, Spec
from finedge.train.models import build_model

RESULTS = Path(__file__).parents[1] / "results" / "attention_int8"
SIDE = 224
MODES = ("float", "scores", "int8")
# The models of `speed`: name, options, whether attention absorbs its projections.
FORMS: dict[str, tuple[str, Mapping[str, Any], bool]] = {
    "plain": ("plain", {}, False),
    "cnl projected": ("cnl", {}, False),
    "cnl absorbed": ("cnl", {}, True),
    "cnl pooled keys": ("cnl", {"pooled_keys": True}, True),
}


def speed(threads: int, rounds: int) -> dict[str, Any]:
    """Return one row: the times of all candidates."""
    frames = smooth_frames()
    sessions = {name: session(model, threads) for name, model in candidates(frames)}
    feed = {"frames": frames[:1]}
    cpu: dict[str, list[float]] = {name: [] for name in sessions}
    wall: dict[str, list[float]] = {name: [] for name in sessions}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(list(sessions)):
            sessions[name].run(None, feed)
            before, start = time.process_time(), time.perf_counter()
            sessions[name].run(None, feed)
            cpu[name].append(1e3 * (time.process_time() - before))
            wall[name].append(1e3 * (time.perf_counter() - start))
    return {
        "part": "speed",
        "threads": threads,
        "rounds": rounds,
        "cpu_ms": {n: round(float(np.median(t)), 3) for n, t in cpu.items()},
        "wall_ms": {n: round(float(np.median(t)), 3) for n, t in wall.items()},
        "over_plain": {n: over_plain(n, cpu) for n in cpu},
        "over_plain_wall": {n: over_plain(n, wall) for n in wall},
    }


def over_plain(name: str, times: Mapping[str, list[float]]) -> float:
    """Return the median over the rounds of a candidate's time over that of plain, less 1."""
    base = "plain fp32" if name.endswith("fp32") else "plain int8"
    return round(float(np.median(np.array(times[name]) / np.array(times[base]))) - 1, 4)


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


def session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Open a model on some threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)


def accuracy(bundle: Bundle, data: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each mode: agreement with the float model on the test split."""
    from finedge.calib.decision_set import load_decision_images

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
    timing.add_argument("--rounds", type=int, default=25)
    answers = parts.add_parser("accuracy")
    answers.add_argument("bundle", type=Path)
    answers.add_argument("data", type=Path)
    options = parser.parse_args()
    if options.part == "speed":
        write(speed(options.threads, options.rounds))
    else:
        for row in accuracy(Bundle.load(options.bundle), options.data):
            write(row)


if __name__ == "__main__":
    main()
