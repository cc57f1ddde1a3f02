"""`finedge train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tyro.conf import OmitArgPrefixes

from finedge.train.request import (
    DEFAULT_MODEL,
    DEFAULT_TRAINING,
    THIS_MACHINE,
    MachineOptions,
    ModelOptions,
    RecipeOptions,
    RunOptions,
    TrainingRequest,
)

if TYPE_CHECKING:
    from finedge.train.distributed import World


def train(
    *,
    run: OmitArgPrefixes[RunOptions],
    model: OmitArgPrefixes[ModelOptions] = DEFAULT_MODEL,
    recipe: OmitArgPrefixes[RecipeOptions] = DEFAULT_TRAINING,
    machine: OmitArgPrefixes[MachineOptions] = THIS_MACHINE,
) -> dict[str, Any] | None:
    """Train a classifier on a folder of images.

    The result is the accuracy on the val split after the last epoch.
    With several processes: torchrun --nproc-per-node N -m finedge train ... The first process
    prints the result.

    Args:
        run: which images, into which run.
        model: which network, and where its weights start.
        recipe: how the network is trained.
        machine: what the training runs on.
    """
    from finedge.train.distributed import joined

    request = TrainingRequest(run, model, recipe, machine)
    with joined(machine.device) as world:
        result = _train(request, world)
    return result if world.writer else None


def _train(request: TrainingRequest, world: World) -> dict[str, Any]:
    from finedge.train.page import trained
    from finedge.train.seeds import train_seeds
    from finedge.train.session import fresh, resumed

    if request.run.seeds is not None:
        return train_seeds(request, world=world)
    trainer = (resumed if request.run.resume else fresh)(request, world=world)
    return trained(trainer)
