"""A run from somebody else: whatever its files hold, it opens or is refused with a DataError."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finedge.errors import DataError
from finedge.train import backbones
from finedge.train.backbones import weights
from finedge.train.checkpoint import NAME as CHECKPOINT
from finedge.train.checkpoint import load_checkpoint, load_weights, save_checkpoint
from finedge.train.ema import MovingAverage
from finedge.train.models import build_model
from finedge.train.optimizer import build_optimizer
from finedge.train.recipe import Recipe
from finedge.train.record import read_metrics
from finedge.train.run import RECORD, load_run, read_record, rebuild

EXAMPLES = [200, pytest.param(2_000, marks=pytest.mark.slow)]
FEW = [40, pytest.param(1_000, marks=pytest.mark.slow)]  # each of them builds a model
RUN = {
    "format": 1,
    "spec": {
        "model": "plain",
        "backbone": "mobilenetv2_035",
        "labels": ["a", "b"],
        "preprocess": {"resize": 37, "crop": 32},
        "input": {"height": 32, "width": 32},
        "outputs": [{"name": "logits", "kind": "logits", "role": "main"}],
    },
    "model": {
        "name": "plain",
        "backbone": "mobilenetv2_035",
        "weights": "none",
        "options": {"dropout": 0.5, "head_init": "small"},
    },
    "recipe": Recipe(epochs=2, size=32).to_json(),
    "data": {"root": "/nowhere", "layout": "folder", "seed": 0, "cut": {"seed": 0, "val": 0.1}},
    "teacher": {"path": "/nowhere", "sha256": "0" * 64},
    "commands": ["finedge train"],
}
ROW = {
    "epoch": 1,
    "loss": 0.5,
    "images_per_s": 3.0,
    "seconds": 1,
    "val_seconds": 0.1,
    "val": {"top1": None, "top5": 0.5, "n": 2},
}

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([10**9, 10**400, -1, "cnl", "resnet18", "a\0b", "\ud800"]),
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(data: Any) -> list[tuple[Any, ...]]:
    """Return the path of every value in plain data."""
    inner = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    return [(key, *rest) for key, value in inner for rest in [(), *places(value)]]


def changed(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value at a place; with `...` the place is removed."""
    copy = json.loads(json.dumps(data))
    inside = copy
    for key in place[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    return copy


def mutants(data: Any) -> st.SearchStrategy[bytes]:
    """Valid files with one value exchanged or missing, with bytes damaged, and noise."""
    text = json.dumps(data).encode()
    other = st.builds(
        lambda p, v: json.dumps(changed(data, p, v)).encode(),
        st.sampled_from(places(data)),
        values | st.just(...),
    )
    cut = st.builds(
        lambda at, junk, length: text[:at] + junk + text[at + length :],
        st.integers(0, len(text)),
        st.binary(max_size=5),
        st.integers(0, 30),
    )
    return st.one_of(
        other,
        other,
        cut,
        st.binary(max_size=60),
        values.map(lambda v: json.dumps(v).encode()),
        st.just(b"[" * 100_000),
    )


def fuzz(count: int, **strategies: Any) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Return the decorator of a check with `count` examples."""
    quiet = settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    return lambda check: quiet(given(**strategies)(check))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_record_raises_an_untyped_error(examples: int, tmp_path: Path) -> None:
    read = []

    @fuzz(examples, content=mutants(RUN))
    def check(content: bytes) -> None:
        (tmp_path / RECORD).write_bytes(content)
        with suppress(DataError):
            read.append(read_record(tmp_path))

    check()
    assert read, "no mutant was whole: only refusals were tested"


@pytest.mark.parametrize("examples", FEW)
def test_no_record_of_a_model_raises_an_untyped_error(examples: int, tmp_path: Path) -> None:
    places_of_it = st.sampled_from(
        [("model", *place) for place in places(RUN["model"])] + [("model", "options", "width")]
    )

    @fuzz(examples, place=places_of_it, value=values)
    def check(place: tuple[str, ...], value: Any) -> None:
        (tmp_path / RECORD).write_text(json.dumps(changed(RUN, place, value)))
        with suppress(DataError):
            rebuild(read_record(tmp_path), path=tmp_path)

    check()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_metrics_raise_an_untyped_error(examples: int, tmp_path: Path) -> None:
    @fuzz(examples, content=mutants(ROW), epochs=st.integers(0, 3))
    def check(content: bytes, epochs: int) -> None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
        with suppress(DataError):
            assert len(read_metrics(tmp_path / "metrics.jsonl", epochs=epochs)) == epochs

    check()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with momentum and a moving average."""
    path = tmp_path_factory.mktemp("saved") / CHECKPOINT
    model, optimizer, ema = parts()
    model(torch.zeros(2, 3, 32, 32))["logits"].sum().backward()
    optimizer.step()
    ema.update(model)
    save_checkpoint(path, model, optimizer=optimizer, ema=ema, epoch=1)
    return path


def parts() -> tuple[Any, torch.optim.SGD, MovingAverage[Any]]:
    model = build_model("plain", num_classes=2, backbone="mobilenetv2_035")
    return model, build_optimizer(model, Recipe(), backbone_lr=1.0), MovingAverage(model, decay=0.9)


@pytest.mark.parametrize("examples", FEW)
def test_no_checkpoint_raises_an_untyped_error(examples: int, saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    model, optimizer, ema = parts()
    words = [
        b"F32",
        b"F64",
        b"BF16",
        b"F8_E8M0",
        b"BOOL",
        b"momentum.",
        b"model.",
        b"ema.",
        b'"epoch":"1"',
        b'"1"',
        b"[",
        b"0",
        b",",
        b"data_offsets",
    ]

    @fuzz(
        examples,
        word=st.sampled_from(words),
        other=st.sampled_from(words) | st.binary(max_size=4),
        at=st.integers(0, header),
        cut=st.booleans(),
    )
    def check(word: bytes, other: bytes, at: int, cut: bool) -> None:
        place = max(whole.find(word, at, header), 0)
        damaged = whole[:place] + other[: len(word)].ljust(len(word)) + whole[place + len(word) :]
        (tmp_path / CHECKPOINT).write_bytes(damaged[: at * 20] if cut else damaged)
        with suppress(DataError):
            load_checkpoint(tmp_path / CHECKPOINT, model, optimizer=optimizer, ema=ema)
            load_weights(tmp_path / CHECKPOINT, model)

    check()
    with pytest.raises(DataError):
        load_weights(tmp_path, model)  # a folder


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("examples", FEW)
def test_no_file_of_weights_raises_an_untyped_error(
    examples: int, suffix: str, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    model, file = backbones.make("mobilenetv2_035", weights="none"), tmp_path / f"w{suffix}"
    few = dict(list(model.state_dict().items())[:6])
    torch.save(few, file) if suffix == ".pth" else save_file(few, file)
    whole = file.read_bytes()
    assert set(weights.read(file)) == set(few)

    @fuzz(
        examples,
        damage=st.lists(
            st.tuples(st.integers(0, 1500), st.binary(min_size=1, max_size=3)), max_size=3
        ),
        length=st.integers(0, 2 * len(whole)),
    )
    def check(damage: list[tuple[int, bytes]], length: int) -> None:
        data = bytearray(whole)
        for at, junk in damage:
            data[at : at + len(junk)] = junk
        file.write_bytes(data[:length])
        with suppress(DataError):
            weights.fit(model, weights.read(file), origin="w")

    check()


@pytest.mark.parametrize(
    "state",
    [
        {1: torch.ones(1)},
        {"a": torch.ones(1, dtype=torch.complex64)},
        {"a": torch.ones(2, 2).to_sparse()},
        {"a": 1},
        [1],
    ],
)
def test_what_is_no_table_of_plain_tensors_is_refused(state: Any, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(DataError, match="does not hold a state dict"):
        weights.read(tmp_path / "w.pth")


def test_momenta_of_another_shape_are_refused(saved: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(saved, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 (not a dict)
    name = next(name for name in tensors if name.startswith("momentum."))
    save_file({**tensors, name: torch.ones(1)}, tmp_path / CHECKPOINT, metadata)
    model, optimizer, ema = parts()
    with pytest.raises(DataError, match="momentum"):
        load_checkpoint(tmp_path / CHECKPOINT, model, optimizer=optimizer, ema=ema)


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"epoch": "-1"}, {"epoch": "1e3"}, {"epoch": "9" * 5000}, {"epoch": "\u0661"}],
)
def test_a_checkpoint_that_is_not_ours_is_refused(
    metadata: dict[str, str] | None, saved: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    save_file(load_file(saved), tmp_path / CHECKPOINT, metadata)
    shutil.copy(saved, tmp_path / "x")
    with pytest.raises(DataError, match="epoch"):
        load_weights(tmp_path / CHECKPOINT, parts()[0])


def test_a_run_whose_checkpoint_is_another_models_is_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(
        json.dumps(changed(RUN, ("model", "backbone"), "mobilenetv3_large"))
    )
    shutil.copy(saved, tmp_path / CHECKPOINT)
    with pytest.raises(DataError):
        load_run(tmp_path)
