"""Fit the local heads of a trained attend_rectify again, each on its own cross-entropy.

    python benchmarks/early_exit_heads.py RUN BUNDLE OUT --data DIR [--heads 1]

The paper trains local heads only through the gates, so a head that the gates do not trust learns
nothing: after lite0_fast on Grocery Store the head at stride 16 has a top-1 of 11.8 % on test. An
exit needs a classifier: fitted so, it has 67.9 % on val instead of 6.1 % (296 images, 3 crops, 25
epochs). Here all weights but those of the chosen heads stay as they are. Maps of
the training images are made once (VIEWS random crops each), and the heads learn on them. OUT is a
run as `finedge train` writes it, for `finedge export --segments`.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from finedge.bundle import Bundle
from finedge.data import Item
from finedge.image import read_image
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.spec import Spec
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.models.attend_rectify import AttendRectify
from finedge.train.run import RECORD, load_run, recorded_data

log = logging.getLogger("early_exit_heads")

VIEWS = 6
AREA = (0.35, 1.0)  # of a random crop, as in the recipe lite0_fast
EPOCHS, BATCH, LR, DECAY, SMOOTHING = 40, 64, 3e-3, 1e-2, 0.1


def main(
    run: tyro.conf.Positional[Path],
    bundle: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    *,
    data: Path,
    heads: tuple[int, ...] = (1,),
    views: int = VIEWS,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> None:
    """Fit heads, and write the run OUT.

    Args:
        run: a run of attend_rectify.
        bundle: the same run, after `finedge export --segments`.
        out: the new run.
        data: its images.
        heads: which local heads, from shallow to deep.
        views: random crops of each training image.
        epochs: passes over all crops.
        seed: of the crops, the order of batches and the new weights.
    """
    loaded = load_run(run)
    model = loaded.model
    if not isinstance(model, AttendRectify):
        raise SystemExit(f"{run} is {loaded.spec.model}; it must be attend_rectify")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    dataset = recorded_data(run, root=data)
    places = [model.places[k] for k in heads]
    opened = Bundle.load(bundle)
    train = maps_of(opened, dataset.splits["train"], places, views=views, rng=rng)
    val = maps_of(opened, dataset.splits["val"], places, views=0, rng=rng)
    record: dict[str, Any] = {"views": views, "epochs": epochs, "seed": seed, "lr": LR, "val": {}}
    for k, place in zip(heads, places, strict=True):
        before = accuracy(head_of(model, k), val[place], val["labels"])
        fresh = fit(model, k, train[place], labels=train["labels"], epochs=epochs)
        after = accuracy(fresh, val[place], val["labels"])
        log.info("local_%d at %s: top-1 on val %.1f -> %.1f %%", k, place, before, after)
        record["val"][f"local_{k}"] = [before, after]
    write_run(run, out, model, record)


def head_of(model: AttendRectify, index: int) -> nn.Sequential:
    """Return a local head: what lies between the map and the logits and masks."""
    return nn.Sequential(model.before[index], model.attention[index])


def maps_of(
    bundle: Bundle,
    items: tuple[Item, ...],
    places: list[str],
    *,
    views: int,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """Return maps float16 [N, C, h, w] by place, and "labels" int64 [N].

    ONNX Runtime makes them with the float segments, up to the last place: three times as fast as
    PyTorch. `views` random crops of each image; 0: the crop of validation.
    """
    tensors = {place: tensor_of(bundle, place) for place in places}
    segments, _ = OnnxRuntimeBackend(SessionOptions(threads=1)).open_segments(
        bundle, variant="fp32"
    )
    parts: dict[str, list[NDArray[np.float16]]] = {place: [] for place in places}
    labels: list[int] = []
    for number, item in enumerate(items):
        crops = np.stack(crops_of(read_image(item.path), spec=bundle.spec, views=views, rng=rng))
        labels += [item.label] * len(crops)
        arrays: dict[str, NDArray[Any]] = {bundle.spec.input.name: crops}
        for segment in segments:
            if all(tensor in arrays for tensor in tensors.values()):
                break
            arrays |= segment(arrays)
        for place, tensor in tensors.items():
            parts[place].append(arrays[tensor].astype(np.float16))
        if number % 500 == 0:
            log.info("maps: %d of %d images", number, len(items))
    maps = {place: torch.from_numpy(np.concatenate(x)) for place, x in parts.items()}
    return {**maps, "labels": torch.tensor(labels)}


def tensor_of(bundle: Bundle, place: str) -> str:
    """Return the tensor of the graph that is the output of a block of the backbone."""
    return next(tap.tensor for tap in bundle.taps if tap.name == f"backbone.{place}")


def crops_of(
    frame: NDArray[np.uint8], *, spec: Spec, views: int, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Return uint8 [crop, crop, 3] each: random areas, mirrored by chance, or the centre crop."""
    import cv2

    from finedge.preprocess import preprocess

    if not views:
        return [preprocess(frame, spec.preprocess)]
    side, (height, width) = spec.preprocess.crop, frame.shape[:2]
    crops = []
    for _ in range(views):
        area = rng.uniform(*AREA) * height * width
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        h = min(height, round((area / ratio) ** 0.5))
        w = min(width, round((area * ratio) ** 0.5))
        y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        crop = cv2.resize(frame[y : y + h, x : x + w], (side, side), interpolation=cv2.INTER_AREA)
        crops.append(np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop))
    return crops


def fit(
    model: AttendRectify, index: int, maps: Tensor, *, labels: Tensor, epochs: int
) -> nn.Sequential:
    """Fit one head on maps [N, C, h, w] with new weights; return it, in evaluation mode."""
    head = head_of(model, index)
    for part in head.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    attention: Any = model.attention[index]
    for weight in (attention.gate, attention.classes.weight):
        nn.init.normal_(weight, std=0.01)
    head.train()
    optimiser = torch.optim.AdamW(head.parameters(), lr=LR, weight_decay=DECAY)
    steps = epochs * (len(maps) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=LR, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(maps))[: len(maps) // BATCH * BATCH].split(BATCH):
            logits, _ = head(maps[rows].float())
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=SMOOTHING)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        if epoch % 5 == 4:
            mean = total / (len(maps) // BATCH)
            log.info("local_%d: epoch %d, loss %.3f", index, epoch + 1, mean)
    return head.eval()


def accuracy(head: nn.Sequential, maps: Tensor, labels: Tensor) -> float:
    """Return the top-1 of a head on maps, in percent."""
    with torch.no_grad():
        named = torch.cat([head(part.float())[0].argmax(1) for part in maps.split(BATCH)])
    return round(100 * float((named == labels).float().mean()), 2)


def write_run(run: Path, out: Path, model: AttendRectify, record: dict[str, Any]) -> None:
    """Write OUT: the run with the model's weights; run.json says how the heads were fitted."""
    out.mkdir(parents=True, exist_ok=True)
    for file in run.iterdir():
        if file.name != CHECKPOINT:
            shutil.copy2(file, out / file.name)
    content = json.loads((out / RECORD).read_text())
    state = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    epochs = str(content["recipe"]["epochs"])
    save_file(state, out / CHECKPOINT, metadata={"epoch": epochs, "ema_updates": "0"})
    content["heads"] = record
    (out / RECORD).write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tyro.cli(main)
