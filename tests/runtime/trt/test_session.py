"""What only a pretended TensorRT can do: capture its own graphs, and raise from any call.

All else of a session is tested on the real bindings: bindings/inside/session.py.
"""

from __future__ import annotations

import gc
import re

import pytest

from finedge.errors import SystemProblem
from tests.runtime.trt.conftest import frames, right


def test_a_library_that_captures_its_own_graphs_does_it_alone(bench):
    rig = bench(own_graphs=True)
    session = rig.open()
    for seed in range(2):
        assert right(session(frames(2, seed=seed)), frames(2, seed=seed))
    assert "cudaStreamBeginCapture" not in rig.cuda.names()
    session.profile(frames(2), runs=1)
    configs = [call[1] for call in rig.cuda.calls if call[0] == "create_execution_context"]
    assert [config.cuda_graph_strategy for config in configs] == ["whole", "off"], (
        "layers are timed without graphs"
    )


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("set_input_shape", TypeError("incompatible function arguments")),
        ("set_device_memory", RuntimeError("std::exception")),
        ("create_execution_context", MemoryError("std::bad_alloc")),
        ("get_tensor_profile_shape", ValueError("Unable to convert function return value")),
        ("get_tensor_dtype", TypeError("Unregistered type : nvinfer1::DataType")),
        ("deserialize_cuda_engine", RuntimeError("std::exception")),
    ],
)
def test_a_call_of_the_binding_that_raises_is_a_typed_error(bench, call, error):
    rig = bench(raises={call: error})
    with pytest.raises(SystemProblem, match=re.escape(f"{type(error).__name__}: {error}")):
        rig.open()(frames(1))
    gc.collect()
    assert rig.cuda.live() == []
