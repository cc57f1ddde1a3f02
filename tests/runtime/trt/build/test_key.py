import json
from dataclasses import fields, replace

import pytest

from finedge.errors import BundleError
from finedge.runtime.trt.build.key import EngineKey
from finedge.runtime.trt.build.store import EngineStore
from tests.runtime.trt.build.conftest import KEY

MUTANTS = {
    "onnx": ["b" * 64, "a" * 63 + "b", ""],
    "plugin": ["c" * 64, "0"],
    "library": ["tensorrt-rtx"],
    "version": ["10.3.0.26", "11.4.1"],
    "gpu": ["NVIDIA Thor", "portable"],
    "compute_capability": ["11.0", "portable"],
    "precision": ["fp16", "int8-fp32"],
    "profile": [(1, 1, 4), (1, 4, 8), (2, 2, 8)],
    "flags": [
        ("attention=decomposed", *KEY.flags[1:]),
        (KEY.flags[0], "typing=weak", KEY.flags[2]),
        KEY.flags[:2],
    ],
}
CASES = [(name, value) for name, values in MUTANTS.items() for value in values]


def test_there_are_twenty_mutants_and_every_field_has_one():
    assert len(CASES) == 20
    assert set(MUTANTS) == {f.name for f in fields(EngineKey)}


@pytest.mark.parametrize(("field", "value"), CASES)
def test_a_mutated_key_is_not_found_and_its_field_is_named(tmp_path, field, value):
    store = EngineStore(tmp_path)
    store.keep(KEY, b"an engine", {})
    mutant = replace(KEY, **{field: value})
    assert store.find(KEY).read() == b"an engine"
    assert store.find(mutant) is None
    assert mutant.differing(store.nearest(mutant).key) == (field,)
    assert mutant.explain(KEY).startswith(f"{field}: ")
    assert mutant.digest() != KEY.digest()


def test_a_key_survives_json():
    assert EngineKey.from_json(json.loads(json.dumps(KEY.to_json()))) == KEY


@pytest.mark.parametrize(
    "damaged", [{}, {"onnx": "a"}, {**KEY.to_json(), "new": 1}, {**KEY.to_json(), "profile": None}]
)
def test_what_is_no_key_is_refused(damaged):
    with pytest.raises(BundleError, match="not an engine key"):
        EngineKey.from_json(damaged)
