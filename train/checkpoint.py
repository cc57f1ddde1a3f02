"""A checkpoint: one safetensors file, to resume a training and to read the finished model.

    model.NAME      the weights as trained
    momentum.NAME   the momentum buffers of SGD
    exp_avg.NAME, exp_avg_sq.NAME, steps.NAME    what AdamW remembers instead
    ema.NAME        the moving average of the weights, where the recipe has one
    best.NAME       the weights of the best epoch on val, where the recipe keeps them
    metadata        epoch: finished epochs;  ema_updates: steps that the average has followed

No state of a random generator is stored: all random numbers of training are a function of (seed,
epoch, index).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from finedge.errors import DataError
from finedge.files import write_bytes
from finedge.train.ema import MovingAverage
from finedge.train.optimizer import remember, remembered

NAME = "checkpoint.safetensors"
COUNT_DIGITS = 15  # of a number of epochs or steps


def save_checkpoint(
    path: Path,
    model: nn.Module,
    *,
    optimizer: torch.optim.Optimizer,
    ema: MovingAverage[Any] | None,
    epoch: int,
    best: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write the state after `epoch` finished epochs; `best` is the state dict of the best one.

    A full disk or a kill leaves the checkpoint that was there before.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= dict(remembered(model, optimizer))
    tensors |= {f"best.{name}": tensor for name, tensor in (best or {}).items()}
    if ema is not None:
        tensors |= {f"ema.{name}": tensor for name, tensor in ema.model.state_dict().items()}
    # Copies in the default layout: safetensors takes neither channels_last nor shared memory.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    write_bytes(
        path, save(plain, {"epoch": str(epoch), "ema_updates": str(ema.updates if ema else 0)})
    )


def load_checkpoint(
    path: Path,
    model: nn.Module,
    *,
    optimizer: torch.optim.Optimizer,
    ema: MovingAverage[Any] | None,
) -> int:
    """Restore what `save_checkpoint` wrote and return the number of finished epochs.

    Raises:
        DataError: the file is missing, damaged, or of another model.
    """
    tensors, metadata = _read(path)
    _restore(model, _part(tensors, "model"), path)
    try:
        remember(model, optimizer, tensors)
    except ValueError as error:
        raise _misfit(path, str(error)) from error
    if ema is not None:
        _restore(ema.model, _part(tensors, "ema") or _part(tensors, "model"), path)
        ema.updates = _count(metadata, "ema_updates", path)
    return _count(metadata, "epoch", path)


def load_weights(path: Path, model: nn.Module) -> int:
    """Load the result of training into `model` and return the number of finished epochs.

    The result is the best epoch if the recipe keeps it, else the moving average if there is one.

    Raises:
        DataError: the file is missing, damaged, or of another model.
    """
    tensors, metadata = _read(path)
    parts = (_part(tensors, part) for part in ("best", "ema", "model"))
    _restore(model, next(filter(None, parts), {}), path)
    return _count(metadata, "epoch", path)


def best_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict of the best epoch; empty where the checkpoint has none."""
    return _part(_read(path)[0], "best")


def finished_epochs(path: Path) -> int:
    """Return the number of finished epochs; a missing or damaged file raises `DataError`."""
    return _count(_read(path)[1], "epoch", path)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # the file itself is no dict and cannot be iterated
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing",
            expected="a folder made by finedge train",
            fix="train again, or copy the whole folder",
        ) from None
    # The library raises its own error, and lets through those of the system and of torch: for a
    # folder, or a dtype that torch lacks.
    except (SafetensorError, OSError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged: {error}", fix="train again, or copy the file again"
        ) from error


def _count(metadata: dict[str, str], name: str, path: Path) -> int:
    text = metadata.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= COUNT_DIGITS):
        raise DataError(
            f"{path} is not a checkpoint of finedge: {name} is {text[:40]!r}",
            expected="a number",
            fix="train again, or copy the file again",
        )
    return int(text)


def _part(tensors: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(f"{part}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{part}.")
    }


def _restore(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise _misfit(path, str(error).splitlines()[-1].strip()) from error


def _misfit(path: Path, fault: str) -> DataError:
    return DataError(
        f"{path} does not fit the model: {fault}",
        expected="the model and options of run.json",
    )
