"""A bundle served whole: the model beside a stand-in of Triton, and in a real tritonserver."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

from finedge.bundle import Bundle
from finedge.errors import BackendMissing
from finedge.image.decode import decode
from finedge.jetson.serve_config.command import serve_config
from finedge.jetson.serve_config.folder import Request
from finedge.jetson.serve_config.python_backend import UTILITIES
from finedge.jetson.serve_config.triton import folders
from finedge.runtime.classifier import Classifier
from tests.jetson.serve_config.conftest import CONFIDENCE, LABELS
from tests.jetson.serve_config.schema import ENUMS, model_config
from tests.jetson.serve_config.triton_server import home, running
from tests.wheels import PYTHON, WheelMissing

MODEL = "my_birds_v2_fp32_images"


def photo(number: int, *, size: tuple[int, int] = (60, 80)) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG" if number % 2 else "PNG")
    return file.getvalue()


class Tensor:
    """Triton's tensor, as far as the model uses it."""

    def __init__(self, name: str, values: Any) -> None:
        self.name, self.values = name, values

    def as_numpy(self) -> Any:
        return self.values

    @classmethod
    def from_dlpack(cls, name: str, values: Any) -> Tensor:
        return cls(name, values)


def stand_in(tensor: type[Tensor] = Tensor) -> types.ModuleType:
    """The module that Triton's stub process brings."""
    module = types.ModuleType(UTILITIES)
    module.__dict__.update(
        Tensor=tensor,
        TritonError=lambda text: text,
        InferenceResponse=lambda output_tensors=(), error=None: (error, output_tensors),
        get_input_tensor_by_name=lambda request, name: request[name],
    )
    return module


def start(repository: Path, monkeypatch: pytest.MonkeyPatch, module: types.ModuleType) -> Any:
    """Import model.py as Triton does, and initialize it."""
    monkeypatch.setitem(sys.modules, UTILITIES, module)
    folder = repository / MODEL
    spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config()())
    parameters = {k: {"string_value": v.string_value} for k, v in config.parameters.items()}
    model = loaded.TritonPythonModel()
    args = {"model_config": json.dumps({"parameters": parameters})}
    model.initialize(args | {"model_repository": str(folder), "model_version": "1"})
    return model


def request_of(*files: bytes) -> dict[str, Tensor]:
    return {"image": Tensor("image", np.array([[file] for file in files], np.object_))}


def answer_of(bundle: Bundle, file: bytes) -> tuple[Any, Any]:
    """The probabilities and the prediction of the classifier itself."""
    with Classifier.open(bundle, variant="fp32") as classifier:
        image = decode(file).image
        (prediction,) = classifier([image])
        return classifier.probabilities(classifier.scores(classifier.prepare([image]))), prediction


def test_its_config_takes_files_and_gives_answers(bundle: Bundle) -> None:
    folder = folders(bundle, Request("fp32", 4))[-1]
    config = text_format.Parse(folder.files["config.pbtxt"], model_config()())
    assert (config.name, config.backend, config.max_batch_size) == (MODEL, "python", 4)
    (image,) = config.input
    assert (image.name, image.data_type, list(image.dims)) == (
        "image",
        ENUMS["DataType"]["TYPE_STRING"],
        [1],
    )
    assert {output.name: list(output.dims) for output in config.output} == {
        "label": [1],
        "p": [1],
        "unknown": [1],
        "probabilities": [len(LABELS)],
    }
    assert config.dynamic_batching.max_queue_delay_microseconds > 0


def test_the_model_answers_as_the_classifier_does(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_config("triton", bundle.path, out=tmp_path / "models", variant="fp32")
    model = start(tmp_path / "models", monkeypatch, stand_in())
    photos = [photo(number) for number in range(3)]
    requests = [request_of(*photos[:2]), request_of(b"no picture"), request_of(photos[2])]
    first, broken, last = model.execute(requests)
    assert "not an image" in broken[0]
    tensors = [{t.name: t.values for t in response[1]} for response in (first, last)]
    for index, file in enumerate(photos):
        p, prediction = answer_of(bundle, file)
        row = {name: values[index % 2] for name, values in tensors[index // 2].items()}
        assert np.array_equal(row["probabilities"], p[0].astype(np.float32))
        assert row["label"][0].decode() == prediction.top[0].label
        assert row["unknown"][0] == prediction.unknown == (p.max() < CONFIDENCE["fp32"]["reject"])
    model.finalize()


@pytest.mark.skipif(int(np.__version__[0]) < 2, reason="it is about numpy 2")
def test_a_stub_that_misreads_arrays_is_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FirstByte(Tensor):
        def as_numpy(self) -> Any:
            return np.full_like(self.values, self.values[0])

    serve_config("triton", bundle.path, out=tmp_path / "models", variant="fp32")
    with pytest.raises(BackendMissing, match="numpy"):
        start(tmp_path / "models", monkeypatch, stand_in(FirstByte))


@pytest.mark.slow
@pytest.mark.skipif(PYTHON != "3.11", reason="the numpy 1 of its list is for Python 3.11")
def test_a_real_server_answers_as_the_classifier_does(bundle: Bundle, tmp_path: Path) -> None:
    serve_config("triton", bundle.path, out=tmp_path / "models", variant="fp32")
    (tmp_path / "home").mkdir()
    try:
        work = home(tmp_path / "home")
    except WheelMissing as error:
        pytest.skip(str(error))
    photos = [photo(number, size=(60 + number, 80)) for number in range(24)]
    with running(work, tmp_path / "models", MODEL) as server, ThreadPoolExecutor(12) as clients:
        status, error = server.infer([b"no picture"])
        assert (status, "not an image" in error["error"]) == (500, True)
        answers = list(clients.map(lambda file: server.infer([file]), photos))
        together = server.infer(photos[:5])[1]
        (stats,) = server.ask("stats")[1]["model_stats"]
    with Classifier.open(bundle, variant="fp32") as classifier:
        images = [decode(file).image for file in photos]
        predictions = [classifier([image])[0] for image in images]
        expected = [
            classifier.probabilities(classifier.scores(classifier.prepare([image])))[0]
            for image in images
        ]
    rows = [{o["name"]: o["data"] for o in record["outputs"]} for _, record in answers]
    assert [status for status, _ in answers] == [200] * 24
    assert [row["label"][0] for row in rows] == [p.top[0].label for p in predictions]
    assert [row["unknown"][0] for row in rows] == [p.unknown for p in predictions]
    # Bit for bit: JSON holds every digit of a float32.
    assert np.array_equal(np.float32([row["probabilities"] for row in rows]), expected)
    batch = {o["name"]: np.reshape(o["data"], o["shape"]) for o in together["outputs"]}
    assert np.array_equal(batch["probabilities"].astype(np.float32), expected[:5])
    assert stats["execution_count"] < stats["inference_count"]  # requests were put together
