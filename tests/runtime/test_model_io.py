"""The inputs and outputs of a model are those of the bundle's spec, or it is refused."""

from __future__ import annotations

import numpy as np
import pytest

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.errors import BundleError
from finedge.runtime.model_io import FLOATS, IoTensor, check_model_io, check_scores

FRAMES = IoTensor("frames", "uint8", (None, 32, 32, 3))
LOGITS = IoTensor("logits", "float32", (None, 6))


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([], [LOGITS]),
        ([IoTensor("frames", "float32", (None, 32, 32, 3))], [LOGITS]),
        ([IoTensor("frames", "uint8", (None, 3, 32, 32))], [LOGITS]),
        ([FRAMES], [IoTensor("scores", "float32", (None, 6))]),
        ([FRAMES], [IoTensor("logits", "int64", (None, 6))]),
        ([FRAMES], [IoTensor("logits", "float32", (None, 7))]),
        ([FRAMES], [IoTensor("logits", "float32", (6,))]),
        ([IoTensor("frames", "uint8", (4, 32, 32, 3))], [IoTensor("logits", "float32", (5, 6))]),
    ],
)
def test_inputs_and_outputs_other_than_the_specs_are_refused(tiny_bundle: Bundle, inputs, outputs):
    with pytest.raises(BundleError, match=FLOAT_FILE):
        check_model_io(inputs, outputs, tiny_bundle, file=FLOAT_FILE)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [None, (None, 6), (None, None), (4, 6)])
def test_a_size_that_is_open_until_the_run_fits(tiny_bundle, dtype, shape):
    check_model_io([FRAMES], [IoTensor("logits", dtype, shape)], tiny_bundle, file=FLOAT_FILE)


@pytest.mark.parametrize(
    "outputs",
    [{}, {"logits": np.zeros(6)}, {"logits": np.zeros((2, 6))}, {"logits": np.zeros((1, 5))}],
)
def test_scores_of_another_shape_are_refused(tiny_bundle, outputs):
    with pytest.raises(BundleError, match="answered 1 frame"):
        check_scores(outputs, tiny_bundle.spec, rows=1, file=FLOAT_FILE)
