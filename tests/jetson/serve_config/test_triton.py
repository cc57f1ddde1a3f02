import hashlib
import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format

from finedge.bundle import Bundle
from finedge.errors import BundleError, UsageError
from finedge.golden import read_golden
from finedge.graph.onnx_file import read_model
from finedge.jetson.serve_config.folder import Request, write
from finedge.jetson.serve_config.pbtxt import EnumName, text
from finedge.jetson.serve_config.triton import FILES, folders
from finedge.runtime.trt.build.graph import prepare
from finedge.runtime.trt.build.options import BuildOptions
from finedge.runtime.trt.build.store import EngineStore
from finedge.schema import decode
from finedge.spec import Preprocess
from tests.jetson.serve_config.conftest import CONFIDENCE, LABELS, SIZE
from tests.jetson.serve_config.schema import ENUMS, model_config
from tests.runtime.trt.build.conftest import KEY


def parsed(folder):
    """Parse config.pbtxt by the published schema."""
    return text_format.Parse(folder.files["config.pbtxt"], model_config()())


@pytest.mark.parametrize("variant", FILES)
def test_config_pbtxt_is_a_model_config_of_the_published_schema(bundle, variant):
    folder, *_ = folders(bundle, Request(variant, 4))
    config = parsed(folder)
    assert config.name == folder.name == f"my_birds_v2_{variant}"
    assert (config.backend, config.default_model_filename, config.max_batch_size) == (
        "onnxruntime",
        "model.onnx",
        4,
    )
    (picture,) = config.input
    assert (picture.name, picture.data_type, picture.format, list(picture.dims)) == (
        "frames",
        ENUMS["DataType"]["TYPE_UINT8"],
        ENUMS["Format"]["FORMAT_NHWC"],
        [SIZE, SIZE, 3],
    )
    assert [(o.name, o.data_type, list(o.dims), o.label_filename) for o in config.output] == [
        (name, ENUMS["DataType"]["TYPE_FP32"], [6], "labels.txt") for name in ("logits", "local")
    ]
    assert config.HasField("dynamic_batching")
    assert config.instance_group[0].kind == ENUMS["Kind"][FILES[variant][1]]


def test_the_parameters_hold_what_the_graph_cannot(bundle, make_bundle):
    parameters = parsed(folders(bundle, Request("int8"))[0]).parameters
    data = json.loads(parameters["finedge.preprocess"].string_value)
    assert decode(Preprocess, data, strict=True) == bundle.spec.preprocess
    assert (
        float(parameters["finedge.temperature"].string_value) == CONFIDENCE["int8"]["temperature"]
    )
    assert float(parameters["finedge.reject"].string_value) == CONFIDENCE["int8"]["reject"]
    assert parameters["finedge.main_output"].string_value == "logits"
    bare = make_bundle(name="bare", provenance={})
    assert "finedge.temperature" not in parsed(folders(bare, Request())[0]).parameters


def test_the_labels_are_one_a_line_in_order(bundle):
    folder, *_ = folders(bundle, Request())
    assert folder.files["labels.txt"].decode().splitlines() == [
        " ".join(label.split()) for label in LABELS
    ]


@pytest.mark.int8
@pytest.mark.parametrize("variant", FILES)
def test_the_served_file_runs_in_onnx_runtime_as_its_config_says(bundle, tmp_path, variant):
    folder, *_ = folders(bundle, Request(variant))
    config = parsed(folder)
    write(folder, tmp_path / "models")
    session = onnxruntime.InferenceSession(
        tmp_path / "models" / config.name / "1" / config.default_model_filename,
        providers=["CPUExecutionProvider"],
    )
    (picture,) = session.get_inputs()
    assert (picture.name, picture.type, picture.shape[1:]) == (
        config.input[0].name,
        "tensor(uint8)",
        list(config.input[0].dims),
    )
    assert [(o.name, o.type, o.shape[1:]) for o in session.get_outputs()] == [
        (o.name, "tensor(float)", list(o.dims)) for o in config.output
    ]
    frames = np.repeat(
        np.asarray(read_golden(bundle)["input"])[None], config.max_batch_size, axis=0
    )
    assert session.run(None, {picture.name: frames})[0].shape == (
        config.max_batch_size,
        len(LABELS),
    )


@pytest.mark.parametrize("variant", FILES)
def test_only_the_int8_folder_warns_of_saturating_products(bundle, variant):
    folder, *_ = folders(bundle, Request(variant))
    assert any("saturate" in note for note in folder.notes) is (variant == "int8")


def engine_key(bundle, **changes):
    options = BuildOptions("fp16", "decomposed")
    model = prepare(read_model(bundle.file(options.file)), options)
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    fields = {"onnx": digest, "precision": "fp16", "flags": ("debug_taps=False",)}
    return replace(KEY, **{**fields, **changes})


def test_engines_of_the_bundle_become_plans_by_compute_capability(bundle):
    store = EngineStore.of(bundle)
    store.keep(engine_key(bundle), b"orin", {})
    store.keep(
        engine_key(bundle, gpu="Thor", compute_capability="11.0", profile=(1, 1, 4)), b"thor", {}
    )
    _, plan, _ = folders(Bundle.load(bundle.path), Request())
    config = parsed(plan)
    assert (config.name, config.backend, config.max_batch_size) == (
        "my_birds_v2_fp16_plan",
        "tensorrt",
        4,
    )
    assert dict(config.cc_model_filenames) == {"8.7": "sm87.plan", "11.0": "sm110.plan"}
    assert {name: content for name, content in plan.files.items() if name.startswith("1/")} == {
        "1/sm87.plan": b"orin",
        "1/sm110.plan": b"thor",
    }
    assert f"1/{config.default_model_filename}" in plan.files
    assert any("10.3.0.30" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("changes", "is_reported"),
    [
        ({"onnx": "a" * 64}, True),
        ({"library": "tensorrt-rtx"}, False),
        ({"flags": ("debug_taps=True",)}, False),
    ],
    ids=["stale", "rtx", "taps"],
)
def test_engines_with_other_answers_are_left_out(bundle, changes, is_reported, caplog):
    EngineStore.of(bundle).keep(engine_key(bundle, **changes), b"engine", {})
    assert len(folders(bundle, Request())) == 2
    assert ("1 engine(s) of other files" in caplog.text) == is_reported


def test_damaged_engine_bytes_are_never_copied(bundle):
    engine = EngineStore.of(bundle).keep(engine_key(bundle), b"engine", {})
    engine.path.write_bytes(b"other!")
    with pytest.raises(BundleError, match="sha256"):
        folders(bundle, Request())


def test_the_notes_say_what_the_client_must_do(bundle, framed):
    (note, *_) = folders(bundle, Request())[0].notes
    assert "Triton resizes nothing" in note
    assert "short side to 36" in note
    (note, *_) = folders(framed, Request())[0].notes
    assert "whole frames, uint8 RGB [40, 48, 3]" in note


def test_a_request_triton_cannot_serve_is_a_usage_error(bundle, tmp_path):
    with pytest.raises(UsageError, match="fp23"):
        folders(bundle, Request("fp23"))
    with pytest.raises(UsageError, match="deepstream"):
        folders(bundle, Request(plugin=tmp_path))


def test_text_format_comes_back_as_it_was():
    words = 'quotes " and \\ and\nlines\tand Ø and {braces: 1}'
    written = text(
        {
            "name": words,
            "max_batch_size": -1,
            "input": [{"dims": [1, 2]}, {"data_type": EnumName("TYPE_FP16")}],
            "dynamic_batching": {},
        }
    )
    config = text_format.Parse(written, model_config()())
    assert (
        config.name,
        config.max_batch_size,
        list(config.input[0].dims),
        config.input[1].data_type,
    ) == (words, -1, [1, 2], 10)
    assert config.HasField("dynamic_batching")
