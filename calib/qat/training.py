"""Quantization-aware training: a few epochs of the run's recipe with INT8 rounding in the network.

    placement     where the TensorRT form has its Q/DQ pairs, with ranges from the calibration
    training      modelopt's fake quantizers there; gradients pass straight through; the float model
                  is the teacher
    result        a float model with other weights: it is calibrated and quantized as any other

The FP32 file of the bundle stays what it was.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from finedge.bundle import FLOAT_FILE, Bundle, sha256
from finedge.calib.options import QatOptions
from finedge.calib.qat.fake_quantizers import add_fake_quantizers, modelopt_version, set_ranges
from finedge.calib.qat.placement import placement_of
from finedge.calib.qat.torch_graph import TorchGraph
from finedge.data import Item
from finedge.errors import BundleError, DataError, FinedgeError, GateError, UsageError
from finedge.export.to_onnx import FramesToOutputs
from finedge.golden import read_golden
from finedge.graph.edit import with_unique_names
from finedge.graph.inlining import inline
from finedge.progress import progress_bar
from finedge.runtime.ort.int8_products import open_exactly
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.distill import distilled
from finedge.train.loader import Batch, TrainingImages, batches, default_workers
from finedge.train.optimizer import lr_at
from finedge.train.recipe import Recipe, recipe_from
from finedge.train.run import Run

log = logging.getLogger(__name__)

# Of max |score|: two computations of one model in float32 differ by 1e-5 of it, two models by it.
SAME_MODEL = 0.01
# Of the logits of the file and of the fake quantizers. A value near the middle of two steps rounds
# to either side, and moves what follows: 0.9998 on EfficientNet-Lite0, where FP32 has 0.9974.
MIN_CORRELATION = 0.995


@dataclass(frozen=True)
class FineTuned:
    """A float model that was trained with fake quantizers, and the module that computes with them.

    Attributes:
        model: inlined, with unique node names.
        graph: the module, with the ranges that it was trained with.
        record: how it was trained, for the provenance.
    """

    model: onnx.ModelProto = field(repr=False)
    graph: TorchGraph = field(repr=False)
    record: dict[str, Any]


def fine_tune(
    model: onnx.ModelProto,
    quantized: onnx.ModelProto,
    *,
    run: Run,
    items: Sequence[Item],
    options: QatOptions,
) -> FineTuned:
    """Train the layers of a float model with the rounding of its INT8 file.

    Args:
        model: the float model.
        quantized: the same in the form for TensorRT: its places and ranges are those of the fake
            quantizers.
        run: gives the recipe, the preprocessing and the loss; see `require_run_of`.
        items: training images.
        options: epochs, learning rate and seed.

    Raises:
        SystemProblem: modelopt is not installed.
        FinedgeError: the loss is no longer a finite number, or the graph has an op without a torch
            form.
    """
    named = with_unique_names(inline(model))
    placement = placement_of(with_unique_names(quantized))
    teacher = TorchGraph(named).eval().requires_grad_(False)
    graph = add_fake_quantizers(TorchGraph(named), placement)
    recipe = recipe_of(run, options)
    losses = _train(graph, teacher, run=run, items=items, recipe=recipe)
    record = {
        "run": str(run.path.resolve()),
        "checkpoint_sha256": sha256(run.path / CHECKPOINT),
        "epochs": options.qat_epochs,
        "lr": options.qat_lr,
        "seed": recipe.seed,
        "batch_size": recipe.batch_size,
        "images": len(items),
        "teacher": "the float model of the bundle",
        "distill_weight": recipe.distill_weight,
        "distill_temperature": recipe.distill_temperature,
        "losses": losses,
        "quantizers": {"weights": len(placement.weights), "activations": len(placement.amax)},
        "versions": {"torch": torch.__version__, "nvidia-modelopt": modelopt_version()},
    }
    return FineTuned(graph.write_to(named), graph, record)


def recipe_of(run: Run, options: QatOptions) -> Recipe:
    """Return the run's recipe for the fine-tuning: one size, no warm-up, a small learning rate.

    Weights are not decayed: BatchNorm is folded into them, so a smaller weight is another function.
    """
    return replace(
        recipe_from(run.record["recipe"]),
        epochs=options.qat_epochs,
        lr=options.qat_lr,
        start_size=0,
        schedule="cosine",
        milestones=(),
        warmup_epochs=0,
        warmup_start=0.0,
        weight_decay=0.0,
    )


def require_run_of(bundle: Bundle, run: Run) -> None:
    """Refuse a run whose model is not that of the bundle: the golden frame gets other scores.

    Raises:
        UsageError: another model, or a bundle that takes whole frames.
        BundleError: the golden frame is damaged.
    """
    if bundle.spec.preprocess.frame is not None:
        raise UsageError(
            f"--qat with {bundle.path}, whose graph takes whole frames",
            expected="a bundle that was exported without --frame",
            fix="finedge export RUN --out BUNDLE, then calibrate that bundle",
        )
    golden, main = read_golden(bundle), bundle.spec.main.name
    stored = np.asarray(golden[f"{FLOAT_FILE}/{main}"], np.float32)
    fault = f"{run.path} is not the run of {bundle.path}"
    recorded = bundle.provenance.get("train", {}).get("run", "the one of finedge train")
    fix = f"--qat RUN, with the run that was exported: {recorded}"
    if run.spec != bundle.spec:
        raise UsageError(f"{fault}: other labels, sizes or outputs", fix=fix)
    with torch.no_grad():
        pixels = torch.from_numpy(np.asarray(golden["input"], np.uint8)[None])
        outputs = FramesToOutputs(run.model, run.spec.preprocess).eval()(pixels)
    index = [output.name for output in bundle.spec.outputs].index(main)
    error = float(np.abs(outputs[index].numpy() - stored).max())
    if not error <= SAME_MODEL * max(1.0, float(np.abs(stored).max())):
        expected = f"at most {SAME_MODEL:.0%} of the largest score"
        raise UsageError(
            f"{fault}: its scores of the golden frame differ by {error:.3g}",
            expected=expected,
            fix=fix,
        )


def require_float(model: onnx.ModelProto, *, name: str) -> None:
    """Refuse a model that is quantized already.

    Raises:
        BundleError: it holds Q/DQ nodes.
    """
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise BundleError(
            f"{name} is quantized already: it holds QuantizeLinear nodes",
            expected="a float model",
            fix="export again",
        )


def check_file(tuned: FineTuned, file: bytes, frames: NDArray[np.uint8]) -> float:
    """Compare the INT8 file for TensorRT with the fake quantizers; return their correlation.

    The module gets the ranges of the file first: they were observed again, with the new weights.
    It also gets the biases of the file, which may be corrected.

    Args:
        tuned: computes with modelopt.
        file: the file, which ONNX Runtime computes.
        frames: uint8 [N, H, W, 3].

    Raises:
        GateError: the correlation of their scores is below `MIN_CORRELATION`.
    """
    model = with_unique_names(onnx.load_model_from_string(file))
    set_ranges(tuned.graph, placement_of(model).amax)
    tuned.graph.read_biases(model)
    session = open_exactly(model)
    name = session.get_outputs()[0].name
    stored = session.run([name], {session.get_inputs()[0].name: frames})[0]
    with torch.no_grad():
        computed = tuned.graph(torch.from_numpy(frames))[name].numpy()
    correlation = float(np.corrcoef(stored.ravel(), computed.ravel())[0, 1])
    if not correlation >= MIN_CORRELATION:
        raise GateError(
            f"the INT8 file and the fake quantizers correlate by {correlation:.4f}",
            expected=f"at least {MIN_CORRELATION} on {len(frames)} images",
        )
    return correlation


def _train(
    graph: TorchGraph, teacher: TorchGraph, *, run: Run, items: Sequence[Item], recipe: Recipe
) -> list[float]:
    """Train `graph` in place; return the mean loss of each epoch."""
    size = min(recipe.batch_size, len(items))
    if size == 0:
        raise DataError("--qat: no training images", expected="at least one")
    steps = len(items) // size
    parameters = [p for p in graph.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=recipe.lr, momentum=recipe.momentum)
    losses = []
    for epoch in range(recipe.epochs):
        total = 0.0
        with progress_bar(f"QAT epoch {epoch + 1}/{recipe.epochs}", steps) as advance:
            for step, batch in enumerate(_epoch(run, items, recipe=recipe, epoch=epoch)):
                lr = lr_at(epoch * steps + step, recipe, steps_per_epoch=steps)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                loss = _loss(graph, teacher, run=run, batch=batch, recipe=recipe)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                total += loss.item()
                _require_finite(total, recipe)
                advance(1)
        losses.append(round(total / steps, 5))
        log.info("QAT epoch %d/%d: loss %.4f", epoch + 1, recipe.epochs, losses[-1])
    return losses


def _epoch(run: Run, items: Sequence[Item], *, recipe: Recipe, epoch: int) -> Iterator[Batch]:
    """Yield the batches of an epoch; the augmentation goes on where the run's last epoch ended."""
    number = run.record["recipe"]["epochs"] + epoch
    images = TrainingImages(items, run.spec.preprocess, recipe, number)
    size = min(recipe.batch_size, len(items))
    order = images.order()[: len(items) // size * size]
    return batches(images, order, batch_size=size, workers=default_workers())


def _loss(
    graph: TorchGraph, teacher: TorchGraph, *, run: Run, batch: Batch, recipe: Recipe
) -> torch.Tensor:
    """Return the run's own loss, mixed with the divergence from the float model."""
    outputs, main = graph(batch.frames), run.spec.main.name
    with torch.no_grad():
        scores = teacher(batch.frames)[main]
    loss = run.model.loss(outputs, batch.targets, label_smoothing=recipe.label_smoothing)
    return distilled(
        loss,
        outputs[main],
        scores,
        weight=recipe.distill_weight,
        temperature=recipe.distill_temperature,
    )


def _require_finite(total: float, recipe: Recipe) -> None:
    if not math.isfinite(total):
        raise FinedgeError(
            f"--qat: the loss is {total} with learning rate {recipe.lr:g}",
            expected="a finite number",
            fix=f"--qat-lr {recipe.lr / 10:g}; the bundle is unchanged",
        )
