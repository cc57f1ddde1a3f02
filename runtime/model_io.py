"""The inputs and outputs of an open model, compared with the bundle's spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.errors import BundleError
from finedge.spec import Spec

EXPORT_AGAIN = "export again"
FLOATS = ("float32", "float16", "float64")


@dataclass(frozen=True)
class IoTensor:
    """An input or output of an open model, as its runtime reports it.

    `dtype` is numpy's name, or the runtime's own word where numpy has none. In `shape` None is a
    size that is open until the model runs. `shape` itself is None where even the rank is unknown.
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
        """Tell whether it can hold such an array. A size that is open on either side fits."""
        if self.dtype not in dtypes or (self.shape is not None and len(self.shape) != len(shape)):
            return False
        sizes = zip(self.shape or shape, shape, strict=True)
        return all(None in (own, other) or own == other for own, other in sizes)


def check_model_io(
    inputs: Sequence[IoTensor],
    outputs: Sequence[IoTensor],
    bundle: Bundle,
    *,
    file: str,
    fix: str = EXPORT_AGAIN,
) -> None:
    """Refuse a model whose input or outputs differ from the spec in name, type, rank or size.

    Raises:
        BundleError: the text names the tensor and what the spec expects.
    """
    path = bundle.path / file
    _check_input(inputs, bundle.spec, path=str(path), fix=fix)
    rows = inputs[0].shape[0] if inputs[0].shape else None
    shape = (rows, len(bundle.spec.labels))
    by_name = {tensor.name: tensor for tensor in outputs}
    for output in bundle.spec.outputs:
        tensor = by_name.get(output.name)
        if tensor is None:
            names = ", ".join(by_name) or "none"
            raise BundleError(
                f"{path} has no output {output.name}",
                expected=f"the outputs of the manifest; the model has {names}",
                fix=fix,
            )
        if not tensor.fits(FLOATS, shape):
            raise BundleError(
                f"{path} answers {tensor}",
                expected=f"{IoTensor(output.name, 'float32', shape)}: a number for each label",
                fix=fix,
            )


def _check_input(inputs: Sequence[IoTensor], spec: Spec, *, path: str, fix: str) -> None:
    shape = (None, spec.input.height, spec.input.width, 3)
    expected = IoTensor(spec.input.name, spec.input.dtype, shape)
    names = [tensor.name for tensor in inputs]
    if names == [expected.name] and inputs[0].fits((expected.dtype,), shape):
        return
    raise BundleError(
        f"{path} takes {'; '.join(map(str, inputs)) or 'nothing'}",
        expected=f"{expected}",
        fix=fix,
    )


def check_scores(
    outputs: Mapping[str, NDArray[np.generic]],
    spec: Spec,
    *,
    rows: int,
    file: str,
) -> None:
    """Refuse outputs that are not a row for each frame with a score for each label.

    Scores that are not finite pass: `finedge.runtime.classifier.probabilities` refuses them.

    Raises:
        BundleError: the text names the output and its shape.
    """
    for output in spec.outputs:
        scores = outputs.get(output.name)
        if scores is None or scores.shape != (rows, len(spec.labels)):
            shape = "nothing" if scores is None else f"an array {list(scores.shape)}"
            raise BundleError(
                f"{file} answered {rows} frame(s) with {shape} as {output.name}",
                expected=f"[{rows}, {len(spec.labels)}]",
                fix=EXPORT_AGAIN,
            )
