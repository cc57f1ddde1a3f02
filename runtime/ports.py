"""Inputs, outputs and answers of an open model, compared with the bundle's spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.errors import BundleError
from finedge.spec import Spec

AGAIN = "export again"
FLOATS = ("float32", "float16", "float64")


@dataclass(frozen=True)
class Port:
    """An input or output of an open model, as the runtime tells it.

    `dtype` is numpy's name, or the runtime's own word where numpy has none. In `shape` None is a
    size that is open until the model runs; `shape` itself is None where not even the rank is known.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name}: {self.dtype} of any shape"
        sizes = [("?" if i else "B") if n is None else str(n) for i, n in enumerate(self.shape)]
        return f"{self.name}: {self.dtype} [{', '.join(sizes)}]"

    def fits(self, dtypes: tuple[str, ...], shape: tuple[int | None, ...]) -> bool:
        """Tell whether it can hold such an array; what is open on either side fits."""
        if self.dtype not in dtypes or (self.shape is not None and len(self.shape) != len(shape)):
            return False
        return all(
            None in (a, b) or a == b for a, b in zip(self.shape or shape, shape, strict=True)
        )


def check_ports(
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    bundle: Bundle,
    *,
    file: str,
    fix: str = AGAIN,
) -> None:
    """Refuse a model whose input or outputs are not those of the spec: names, types, ranks, sizes.

    Raises:
        BundleError: with what was found.
    """
    spec, path = bundle.spec, bundle.path / file
    port_of_spec = Port(
        spec.input.name,
        spec.input.dtype,
        (None, spec.input.height, spec.input.width, 3),
    )
    if (
        len(inputs) != 1
        or inputs[0].name != port_of_spec.name
        or not inputs[0].fits(
            (port_of_spec.dtype,),
            port_of_spec.shape or (),
        )
    ):
        raise BundleError(
            f"{path} takes {'; '.join(map(str, inputs)) or 'nothing'}",
            expected=f"{port_of_spec}",
            fix=fix,
        )
    rows = inputs[0].shape[0] if inputs[0].shape else None
    by_name = {port.name: port for port in outputs}
    for output in spec.outputs:
        port = by_name.get(output.name)
        if port is None:
            names = ", ".join(by_name) or "none"
            raise BundleError(
                f"{path} has no output {output.name}",
                expected=f"the outputs of the manifest; found {names}",
                fix=fix,
            )
        if not port.fits(FLOATS, (rows, len(spec.labels))):
            answer = Port(output.name, "float32", (rows, len(spec.labels)))
            raise BundleError(
                f"{path} answers {port}",
                expected=f"{answer}: a number for each label",
                fix=fix,
            )


def check_answers(
    answers: Mapping[str, NDArray[np.generic]],
    spec: Spec,
    *,
    rows: int,
    file: str,
) -> None:
    """Refuse answers that are not a row for each frame with a number for each label.

    Raises:
        BundleError: with what came back. Numbers that are not finite are for
            `finedge.runtime.classifier.probabilities`.
    """
    for output in spec.outputs:
        answer = answers.get(output.name)
        if answer is None or answer.shape != (rows, len(spec.labels)):
            shape = "nothing" if answer is None else f"an array {list(answer.shape)}"
            raise BundleError(
                f"{file} answered {rows} frame(s) with {shape} as {output.name}",
                expected=f"[{rows}, {len(spec.labels)}]",
                fix=AGAIN,
            )
