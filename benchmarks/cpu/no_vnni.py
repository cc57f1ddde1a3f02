"""INT8 on a CPU without VNNI: accuracy of each way, on a bundle's test split.

    python benchmarks/cpu/no_vnni.py BUNDLE DATA [--images N] [--out FOLDER]

One JSON line for each way is appended to FOLDER/BUNDLE.jsonl; ways that are there already are not
run again. Scaled weights are exact on every CPU, so they run as they are. What saturates runs under
`qemu-x86_64 -cpu Haswell`, which computes bit for bit what such a CPU does.

| way | what runs |
| --- | --- |
| fp32 | the float file |
| exact | the CPU file with exact products: as with VNNI |
| saturating | the CPU file as it is, emulated |
| seven_bits | all weights times 63/127: what finedge did before |
| scaled | what finedge does: `finedge.graph.reduce_range` |
| portable_exact, portable_saturating, portable_scaled | the same of the portable file |
| u8u8 | ONNX Runtime's `session.x64quantprecision`, emulated: equal to `exact` |
| openvino_cpu, openvino_portable | OpenVINO on both files |
| openvino_cpu_emulated, openvino_portable_emulated | the same on the emulated CPU |
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tyro
from numpy.typing import NDArray
from onnx import numpy_helper
from tyro.conf import Positional

from finedge.bundle import CPU_FILE, FLOAT_FILE, PORTABLE_FILE, Bundle
from finedge.graph.edit import copied
from finedge.graph.reduce_range import reduce_range
from finedge.image import read_image
from finedge.runtime.classifier import Classifier
from finedge.runtime.evaluate.labelled import SplitOptions, evaluated_images
from finedge.runtime.machine.packages import package_version
from finedge.runtime.ort.int8_products import EXACT_SETTING, PROVIDER
from finedge.runtime.telemetry.environment import environment
from finedge.subset import first_balanced

EMULATOR = ("qemu-x86_64", "-cpu", "Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm")
BATCH = 16
EMULATED_OPENVINO_IMAGES = 64
SEVEN_BITS = 63 / 127

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Way:
    """A file, how it is changed, and what runs it."""

    file: str
    change: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None
    runner: str = "onnxruntime"
    emulated: bool = False


def seven_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with all its stored integers times 63/127, and their scales times 127/63."""
    changed = copied(model)
    tensors = {t.name: t for t in changed.graph.initializer}
    makers = [n for n in changed.graph.node if n.op_type == "DequantizeLinear"]
    makers = [node for node in makers if node.input[0] in tensors]
    for name in {node.input[0] for node in makers}:
        values = numpy_helper.to_array(tensors[name])
        smaller = np.rint(values * SEVEN_BITS).astype(values.dtype)
        tensors[name].CopyFrom(numpy_helper.from_array(smaller, name))
    for name in {node.input[1] for node in makers}:
        scale = numpy_helper.to_array(tensors[name])
        larger = (scale / SEVEN_BITS).astype(scale.dtype)
        tensors[name].CopyFrom(numpy_helper.from_array(larger, name))
    return changed


def scaled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return what the runtime makes of a file on such a CPU."""
    return reduce_range(model).model


WAYS = {
    "fp32": Way(FLOAT_FILE),
    "exact": Way(CPU_FILE, runner="exact"),
    "seven_bits": Way(CPU_FILE, seven_bits),
    "scaled": Way(CPU_FILE, scaled),
    "saturating": Way(CPU_FILE, emulated=True),
    "u8u8": Way(CPU_FILE, runner="exact", emulated=True),
    "portable_exact": Way(PORTABLE_FILE, runner="exact"),
    "portable_saturating": Way(PORTABLE_FILE, emulated=True),
    "portable_scaled": Way(PORTABLE_FILE, scaled),
    "openvino_cpu": Way(CPU_FILE, runner="openvino"),
    "openvino_portable": Way(PORTABLE_FILE, runner="openvino"),
    "openvino_cpu_emulated": Way(CPU_FILE, runner="openvino", emulated=True),
    "openvino_portable_emulated": Way(PORTABLE_FILE, runner="openvino", emulated=True),
}


def main(
    bundle: Positional[Path],
    data: Positional[Path],
    *,
    images: int = 0,
    emulated_images: int = 600,
    out: Path = Path("benchmarks/results/no_vnni"),
    ways: tuple[str, ...] = tuple(WAYS),
) -> None:
    """Measure the ways that FOLDER has no row of.

    Args:
        bundle: a calibrated bundle.
        data: its data set.
        images: how many images of the test split, chosen evenly over the classes; 0 is all.
        emulated_images: how many of these run on the emulated CPU, about 20 times as slow.
        out: the folder of the rows.
        ways: the ways that are measured.
    """
    loaded = Bundle.load(bundle)
    out.mkdir(parents=True, exist_ok=True)
    rows = out / f"{loaded.path.name.removesuffix('.finedge')}.jsonl"
    done = (
        {json.loads(line)["way"] for line in rows.read_text().splitlines()}
        if rows.exists()
        else set()
    )
    frames, labels = test_split(loaded, data, images)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(loaded, frames, labels, Path(folder), emulated_images)
        for name in ways:
            if name not in done:
                row = bench.row(name)
                with rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


def test_split(
    bundle: Bundle, data: Path, images: int
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Return the prepared frames of the test split and their classes."""
    items = evaluated_images(bundle, SplitOptions(data=data)).items
    items = first_balanced(items, images) if images else items
    with Classifier.open(bundle, variant="fp32") as classifier:
        frames = [classifier.prepare([read_image(item.path)]) for item in items]
    return np.concatenate(frames), np.array([item.label for item in items])


@dataclass(frozen=True)
class Bench:
    """The test split, and the logits of the float file as soon as they are there."""

    bundle: Bundle
    frames: NDArray[np.uint8]
    labels: NDArray[np.intp]
    folder: Path
    emulated_images: int

    def row(self, name: str) -> dict[str, Any]:
        """Return what a way answers to the split, against the float file and against `exact`."""
        chosen = self._chosen(WAYS[name])
        logits, golden = self._logits(name)
        labels = self.labels[chosen]
        row = {
            "bundle": self.bundle.name,
            "model": self.bundle.spec.model,
            "way": name,
            "images": len(logits),
            "top1": share(logits.argmax(axis=1) == labels),
            **self._against("fp32", logits, chosen, golden=golden),
            **self._against("exact", logits, chosen, golden=golden),
            "emulated": EMULATOR[2].split(",")[0] if WAYS[name].emulated else None,
        }
        if name in ("scaled", "portable_scaled"):
            fitted = reduce_range(onnx.load(self.bundle.file(WAYS[name].file)))
            row |= {
                "mean_scale": round(fitted.mean_scale, 4),
                "scaled_share": round(fitted.scaled_share, 4),
                "cut_pairs": fitted.cut,
                "exact_layers": len(fitted.exact),
            }
        runner = "openvino" if WAYS[name].runner == "openvino" else "onnxruntime"
        return {**row, runner: package_version(runner), "environment": environment()}

    def _against(
        self, other: str, logits: Array, chosen: slice, *, golden: Array
    ) -> dict[str, Any]:
        other_logits, other_golden = self._logits(other)
        expected = other_logits[chosen] if len(other_logits) > len(logits) else other_logits
        differences = np.asarray(logits, np.float64) - expected
        return {
            f"top1_of_{other}_there": share(expected.argmax(axis=1) == self.labels[chosen]),
            f"flips_{other}": share(logits.argmax(axis=1) != expected.argmax(axis=1)),
            f"rms_{other}": round(float(np.sqrt((differences**2).mean(axis=1)).mean()), 4),
            f"golden_{other}": round(float(np.abs(golden - other_golden).max()), 4),
        }

    def _chosen(self, way: Way) -> slice:
        limit = self.emulated_images if way.emulated else len(self.frames)
        if way.emulated and way.runner == "openvino":
            limit = EMULATED_OPENVINO_IMAGES
        return slice(None, None, max(1, -(-len(self.frames) // limit)))

    def _logits(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the logits of the split and of the golden frame; each way runs once."""
        answers = self.folder / f"{name}.npy"
        way = WAYS[name]
        if not answers.exists():
            self._run(way, answers)
        logits = np.load(answers)
        return logits[:-1], logits[-1]

    def _run(self, way: Way, answers: Path) -> None:
        model, inputs = self.folder / "model.onnx", self.folder / "frames.npy"
        content = onnx.load(self.bundle.file(way.file))
        onnx.save(way.change(content) if way.change else content, model)
        golden = np.load(self.bundle.file("golden.npz"))["input"].astype(np.uint8)
        np.save(inputs, np.concatenate([self.frames[self._chosen(way)], golden[None]]))
        command = [sys.executable, __file__, "worker", way.runner, model, inputs, answers]
        names = [self.bundle.spec.main.name, self.bundle.spec.input.name]
        prefix = EMULATOR if way.emulated else ()
        subprocess.run([*prefix, *map(str, command), *names], check=True)


def share(flags: Array) -> float:
    """Return the share of true flags in percent."""
    return round(100 * float(np.mean(flags)), 3)


def work(runner: str, model: str, inputs: str, answers: str, output: str, name: str) -> None:
    """Run a model on stored frames and store its logits: the part that may be emulated."""
    frames = np.load(inputs)
    parts = [frames[i : i + BATCH] for i in range(0, len(frames), BATCH)]
    run = openvino_runner if runner == "openvino" else onnxruntime_runner
    np.save(answers, np.concatenate(list(run(model, parts, output, name, runner == "exact"))))


def onnxruntime_runner(
    model: str, parts: list[Array], output: str, name: str, exact: bool
) -> Iterator[Array]:
    """Yield the logits of each batch, of ONNX Runtime with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if exact:
        options.add_session_config_entry(*EXACT_SETTING)
    session = onnxruntime.InferenceSession(model, options, providers=[PROVIDER])
    yield from (session.run([output], {name: part})[0] for part in parts)


def openvino_runner(
    model: str, parts: list[Array], output: str, name: str, exact: bool
) -> Iterator[Array]:
    """Yield the logits of each batch, of OpenVINO with one thread and float32."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    yield from (compiled({name: part})[output] for part in parts)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(*sys.argv[2:])
    else:
        tyro.cli(main)
