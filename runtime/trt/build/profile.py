"""The optimisation profile: which batch sizes an engine serves."""

from __future__ import annotations

from typing import Any

from finedge.errors import BundleError, UsageError
from finedge.runtime.trt.build.options import Profile


def add_profile(config: Any, profile: Profile, *, builder: Any, network: Any, name: str) -> None:
    """Give `config` the batch sizes of `profile` for the network's input `name`.

    Names are checked here: the library takes a profile for an input that does not exist without a word.

    Raises:
        BundleError: the network has other inputs, or more than its batch is open.
        UsageError: the network's batch is fixed at another size.
    """
    shape = _shape(network, name)
    if shape[0] > 0:
        if (profile.min, profile.max) != (shape[0], shape[0]):
            raise UsageError(
                f"batch profile {profile.min},{profile.opt},{profile.max} for a model of fixed batch {shape[0]}",
                fix=f"--batch {shape[0]}",
            )
        return
    ours = builder.create_optimization_profile()
    ours.set_shape(name, *((size, *shape[1:]) for size in (profile.min, profile.opt, profile.max)))
    if config.add_optimization_profile(ours) < 0:
        raise UsageError(
            f"TensorRT refuses the batch profile {profile}", expected="1 <= min <= opt <= max"
        )


def _shape(network: Any, name: str) -> tuple[int, ...]:
    inputs = {
        t.name: tuple(t.shape) for t in (network.get_input(i) for i in range(network.num_inputs))
    }
    if set(inputs) != {name}:
        raise BundleError(
            f"the model's inputs are {', '.join(inputs)}",
            expected=f"{name}, as in the manifest",
            fix="export again",
        )
    if min(inputs[name][1:]) < 1:
        raise BundleError(
            f"input {name} is {list(inputs[name])}",
            expected="only the batch open (-1)",
            fix="export again",
        )
    return inputs[name]
