"""Inputs, outputs and answers that do not fit the bundle are refused."""

from __future__ import annotations

import numpy as np
import pytest

from finedge.bundle import FLOAT_FILE, Bundle
from finedge.errors import BundleError
from finedge.runtime.ports import FLOATS, Port, check_answers, check_ports

FRAMES = Port("frames", "uint8", (None, 32, 32, 3))


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([], [Port("logits", "float32", (None, 6))]),
        ([Port("frames", "float32", (None, 32, 32, 3))], [Port("logits", "float32", (None, 6))]),
        ([Port("frames", "uint8", (None, 3, 32, 32))], [Port("logits", "float32", (None, 6))]),
        ([FRAMES], [Port("scores", "float32", (None, 6))]),
        ([FRAMES], [Port("logits", "int64", (None, 6))]),
        ([FRAMES], [Port("logits", "float32", (None, 7))]),
        ([FRAMES], [Port("logits", "float32", (6,))]),
        ([Port("frames", "uint8", (4, 32, 32, 3))], [Port("logits", "float32", (5, 6))]),
    ],
)
def test_ports_other_than_the_spec_are_refused(tiny_bundle: Bundle, inputs, outputs):
    with pytest.raises(BundleError, match=FLOAT_FILE):
        check_ports(inputs, outputs, tiny_bundle, file=FLOAT_FILE)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [None, (None, 6), (None, None), (4, 6)])
def test_what_is_open_until_the_run_fits(tiny_bundle, dtype, shape):
    check_ports([FRAMES], [Port("logits", dtype, shape)], tiny_bundle, file=FLOAT_FILE)


@pytest.mark.parametrize(
    "answers",
    [{}, {"logits": np.zeros(6)}, {"logits": np.zeros((2, 6))}, {"logits": np.zeros((1, 5))}],
)
def test_answers_of_another_shape_are_refused(tiny_bundle, answers):
    with pytest.raises(BundleError, match="answered 1 frame"):
        check_answers(answers, tiny_bundle.spec, rows=1, file=FLOAT_FILE)
