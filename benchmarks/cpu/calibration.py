"""INT8 calibration: ours against onnxruntime, NNCF and nvidia-modelopt, on the same images.

usage: calibration.py BUNDLE DATA [--images 256] [--test 0] [--tools a,b] [--python P] [--rounds 0]

Each tool gets the same float ONNX file (functions inlined, attention left out of quantization) and
the same preprocessed training images, one at a time, and runs in a process of its own. Its INT8
file runs in ONNX Runtime with exact INT8 products on the test split. A tool that is not installed
is left out. `--python` is the interpreter of an environment with nncf and modelopt[onnx]. Ours
correct biases, as `finedge calibrate` does; `max-uncorrected` does not, and computes what
quantize_static computes.

A row (OUT/BUNDLE.json) has: top-1 and agreement with float, each with its 95 % Wilson interval; the
mean KL divergence in nats; CPU seconds, wall seconds and the peak memory of the tool's process,
with its imports; whether OpenVINO compiles the file. ONNX Runtime has one thread in every tool, so
that no CPU time is spent on waiting. `versus` has the p-value of McNemar's exact test of each of
our methods against the row. Rows that are there are not measured again. `--rounds N` adds N rows of
`costs`: the tools of COSTS in turn, each time in another order.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

OURS = ("max", "percentile", "entropy", "mse", "auto")
STATIC = {"ort-minmax": "MinMax", "ort-entropy": "Entropy", "ort-percentile": "Percentile"}
UNCORRECTED = "max-uncorrected"
TOOLS = (*OURS, UNCORRECTED, *STATIC, "nncf", "nncf-accuracy", "modelopt")
OTHER_ENVIRONMENT = ("nncf", "nncf-accuracy", "modelopt")
COSTS = ("max", UNCORRECTED, "ort-minmax")
Frames = NDArray[np.uint8]


def prepare(bundle_path: Path, data: Path, work: Path, *, images: int, test: int) -> None:
    """Write the float model, the frames and the labels that every tool reads."""
    from finedge.bundle import Bundle
    from finedge.calib.decision.decision_set import draw_samples, load_decision_images
    from finedge.calib.int8_files import float_model
    from finedge.calib.ranges.calibration_set import CalibrationSet
    from finedge.graph.inlining import inline
    from finedge.runtime.evaluate.labelled import bundle_dataset
    from finedge.subset import first_balanced

    bundle = Bundle.load(bundle_path)
    dataset = bundle_dataset(bundle, data)
    samples = draw_samples(dataset, images=images)
    assert samples.decision is not None, "too few training images"
    tested = CalibrationSet(first_balanced(dataset.split("test"), test), ())
    sets = {"train": samples.calibration, "decide": samples.decision, "test": tested}
    for name, sample in sets.items():
        loaded = load_decision_images(sample, bundle.spec.preprocess)
        np.savez(work / f"{name}.npz", frames=loaded.frames, labels=loaded.labels)
    (work / "float.onnx").write_bytes(inline(float_model(bundle)).SerializeToString())
    (work / "spec.json").write_text(json.dumps(bundle.spec.to_json()))


def read(work: Path, name: str) -> tuple[Frames, NDArray[np.intp]]:
    """Return the frames and labels of a set."""
    stored = np.load(work / f"{name}.npz")
    return stored["frames"], stored["labels"]


def attention_nodes(work: Path) -> list[str]:
    """Return the names of the nodes inside attention: no tool may quantize them."""
    import onnx

    from finedge.graph.tags import tags

    model = onnx.load(work / "float.onnx")
    return [node.name for node in model.graph.node if tags(node)]


def one_by_one(frames: Frames) -> Iterator[Frames]:
    """Yield batches of one image."""
    return (frames[i : i + 1] for i in range(len(frames)))


def quantize_ours(work: Path, method: str, out: Path) -> None:
    """One pass, the choice for auto, the correction of the biases, and the file for CPUs."""
    import onnx

    from finedge.calib.bias.bias_correction import float_means
    from finedge.calib.decision.compare import Decision
    from finedge.calib.decision.decision_set import DecisionImages
    from finedge.calib.decision.method import choose_method
    from finedge.calib.int8_files import CalibratedModel, cpu_model
    from finedge.calib.plan import QuantizationPlan
    from finedge.calib.ranges.collectors import COLLECTORS
    from finedge.calib.ranges.observe import collect_tables
    from finedge.spec import Spec

    model = onnx.load(work / "float.onnx")
    corrects, frames = method != UNCORRECTED, read(work, "train")[0]
    method = method if corrects else "max"
    methods = tuple(COLLECTORS) if method == "auto" else (method,)
    tables = collect_tables(model, one_by_one(frames), methods=methods)
    means = float_means(model, one_by_one(frames)) if corrects else None
    spec = Spec.from_json(json.loads((work / "spec.json").read_text()))
    calibrated = CalibratedModel(model, spec, tables, means=means)
    plan = QuantizationPlan(methods[0])
    if method == "auto":
        decision = Decision(model, spec, DecisionImages(*read(work, "decide")))
        choice = choose_method(calibrated, decision, plan=plan)
        plan = choice.plan
        note = {"chosen": plan.method, "reason": choice.reason}
        out.with_suffix(".note.json").write_text(json.dumps(note))
    onnx.save(cpu_model(calibrated, plan), out)


def quantize_static(work: Path, method: str, out: Path) -> None:
    """Onnxruntime's own tool, with the types that are fast on x86."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = one_by_one(read(work, "train")[0])

        def get_next(self) -> dict[str, Frames] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"frames": batch}

    quantize_static(
        str(work / "float.onnx"),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[STATIC[method]],
        nodes_to_exclude=attention_nodes(work),
    )


def quantize_nncf(work: Path, method: str, out: Path) -> None:
    """NNCF's post-training quantization; `nncf-accuracy` may lose 1 % of top-1."""
    import nncf
    import onnx
    import onnxruntime

    model = onnx.load(work / "float.onnx")
    names = attention_nodes(work)
    options: dict[str, Any] = {"subset_size": len(read(work, "train")[0])}
    if names:
        options["ignored_scope"] = nncf.IgnoredScope(names=names, validate=False)
    train = nncf.Dataset(list(one_by_one(read(work, "train")[0])), lambda x: {"frames": x})
    if method == "nncf":
        onnx.save(nncf.quantize(model, train, **options), out)
        return
    frames, labels = read(work, "decide")
    pairs = list(zip(one_by_one(frames), labels, strict=True))

    def validate(candidate: onnx.ModelProto, items: Any) -> float:
        session = onnxruntime.InferenceSession(
            candidate.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        right = [session.run(None, {"frames": x})[0].argmax() == label for x, label in items]
        return float(np.mean(right))

    held_out = nncf.Dataset(pairs, lambda pair: {"frames": pair[0]})
    result = nncf.quantize_with_accuracy_control(
        model, train, held_out, validation_fn=validate, max_drop=0.01, **options
    )
    onnx.save(result, out)


def quantize_modelopt(work: Path, method: str, out: Path) -> None:
    """nvidia-modelopt's ONNX path, method max: it writes the form for TensorRT."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(work / "float.onnx"),
        quantize_mode="int8",
        calibration_data={"frames": read(work, "train")[0]},
        calibration_method="max",
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        nodes_to_exclude=attention_nodes(work),
        output_path=str(out),
    )


def use_one_thread() -> None:
    """Open every session of ONNX Runtime in this process with one thread."""
    import onnxruntime

    class OneThread(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, model: Any, sess_options: Any = None, **options: Any) -> None:
            settings = sess_options or onnxruntime.SessionOptions()
            settings.intra_op_num_threads = 1
            super().__init__(model, settings, **options)

    onnxruntime.InferenceSession = OneThread


def run_tool(tool: str, work: Path, out: Path) -> None:
    """Quantize in this process; write the file and its cost."""
    start = time.perf_counter()
    use_one_thread()
    if tool in (*OURS, UNCORRECTED):
        quantize_ours(work, tool, out)
    elif tool in STATIC:
        quantize_static(work, tool, out)
    elif tool.startswith("nncf"):
        quantize_nncf(work, tool, out)
    else:
        quantize_modelopt(work, tool, out)
    cost = {
        "cpu_s": round(time.process_time(), 2),
        "wall_s": round(time.perf_counter() - start, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    out.with_suffix(".cost.json").write_text(json.dumps(cost))


def measured(work: Path, tool: str) -> dict[str, Any]:
    """Return the accuracy of a tool's file on the test split."""
    import onnx

    from finedge.calib.decision.compare import Decision
    from finedge.calib.decision.decision_set import DecisionImages
    from finedge.measure import wilson95
    from finedge.spec import Spec

    spec = Spec.from_json(json.loads((work / "spec.json").read_text()))
    decision = Decision(onnx.load(work / "float.onnx"), spec, DecisionImages(*read(work, "test")))
    cached = work / "float_scores.npy"
    if cached.exists():
        decision.__dict__["float_scores"] = np.load(cached)
    else:
        np.save(cached, decision.float_scores)
    comparison = decision.compare(onnx.load(work / f"{tool}.onnx"))
    right, agreeing, n = (
        int(comparison.correct.sum()),
        int(comparison.agrees.sum()),
        len(comparison.agrees),
    )
    return {
        **comparison.to_json(),
        "float_top1": round(float(comparison.float_correct.mean()), 6),
        "top1_95": [round(x, 4) for x in wilson95(right, n)],
        "agreement_95": [round(x, 4) for x in wilson95(agreeing, n)],
        "mcnemar_float": round(comparison.p_value, 4),
        "correct": "".join(map(str, comparison.correct.astype(int))),
    }


def with_versus(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with McNemar's p-value of each of our methods against each."""
    from finedge.measure import mcnemar

    answers = {row["tool"]: np.array(list(row["correct"])) == "1" for row in rows}
    for row in rows:
        theirs = answers[row["tool"]]
        row["versus"] = {
            method: round(
                mcnemar(
                    int((answers[method] & ~theirs).sum()), int((theirs & ~answers[method]).sum())
                ),
                4,
            )
            for method in OURS
            if method in answers and method != row["tool"]
        }
    return rows


def runs_in_openvino(path: Path) -> str:
    """Return `yes`, or the first line of the error."""
    try:
        import openvino

        openvino.Core().compile_model(str(path), "CPU")
    except Exception as error:  # any of OpenVINO's own errors is the answer here
        return str(error).strip().splitlines()[0][:120]
    return "yes"


def cost_of(tool: str, work: Path, python: str) -> dict[str, Any]:
    """Run a tool in its own process; return its cost, or `error` where it failed."""
    words = [python, __file__, "--tool", tool, "--work", str(work)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        (work / f"{tool}.error.txt").write_text(done.stderr)
        return {"tool": tool, "error": lines[-1][:200]}
    cost = json.loads((work / f"{tool}.cost.json").read_text())
    return {"tool": tool, **cost, "commit": commit()}


def row_of(tool: str, work: Path, python: str) -> dict[str, Any]:
    """Run a tool; return its row."""
    cost = cost_of(tool, work, python)
    if "error" in cost:
        return cost
    out = work / f"{tool}.onnx"
    note = out.with_suffix(".note.json")
    return {
        **cost,
        **measured(work, tool),
        **(json.loads(note.read_text()) if note.exists() else {}),
        "openvino": runs_in_openvino(out),
    }


def commit() -> str:
    """Return the commit that made a row."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def conditions(images: int) -> dict[str, Any]:
    """Return the CPU and the versions of a run."""
    import onnxruntime

    from finedge.runtime.machine.cpu import cpu_name

    return {
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "calibration_images": images,
    }


def main() -> None:
    """Measure what is missing, and write after each tool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/calibration"))
    parser.add_argument("--work", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--test", type=int, default=0, help="images of the test split; 0: all")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--python", default=sys.executable, help="runs NNCF and modelopt")
    parser.add_argument("--rounds", type=int, default=0, help="of the tools of COSTS, in turn")
    parser.add_argument("--tool")
    options = parser.parse_args()
    if options.tool:
        run_tool(options.tool, options.work, options.work / f"{options.tool}.onnx")
        return
    work = options.work / options.bundle.stem
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "spec.json").exists():
        prepare(options.bundle, options.data, work, images=options.images, test=options.test)
    target = options.out / f"{options.bundle.stem}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(target.read_text()) if target.exists() else {"rows": [], "costs": []}
    rows, costs = content["rows"], content["costs"]
    rows[:] = [row for row in rows if "error" not in row]  # tried again
    finished = {row["tool"] for row in rows}
    for tool in (t for t in options.tools.split(",") if t and t not in finished):
        python = options.python if tool in OTHER_ENVIRONMENT else sys.executable
        rows.append(row_of(tool, work, python))
        keep(target, rows, costs, images=options.images)
        shown = {k: v for k, v in rows[-1].items() if k != "correct"}
        print(json.dumps(shown), flush=True)
    for number in range(len(costs) // len(COSTS), options.rounds):
        for tool in random.Random(number).sample(COSTS, len(COSTS)):
            costs.append({"round": number, **cost_of(tool, work, sys.executable)})
            keep(target, rows, costs, images=options.images)
            print(json.dumps(costs[-1]), flush=True)


def keep(
    target: Path, rows: list[dict[str, Any]], costs: list[dict[str, Any]], *, images: int
) -> None:
    """Write what was measured so far; tools that failed come last."""
    complete = with_versus([row for row in rows if "error" not in row])
    rows = [*complete, *(row for row in rows if "error" in row)]
    content = {**conditions(images), "rows": rows, "costs": costs}
    target.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
