"""Foreign records in a folder: reports, golden frames, engines, and marks of finedge's folders."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from finedge.bundle import GOLDEN, Bundle
from finedge.errors import BundleError, DataError, UsageError
from finedge.golden import pack, read_golden
from finedge.runtime.report.content import read_report
from finedge.runtime.trt.build.key import EngineKey
from finedge.runtime.trt.build.store import EngineStore
from finedge.spec import Input, Preprocess, Spec
from finedge.synthetic.command import RECORD, RenderPlan, _recorded_plan
from tests.fuzz.mutate import SEEDS, edited, garbled, json_bytes, nearly, noise
from tests.runtime.report.conftest import sample_report, sample_row

KEY = EngineKey(
    "0" * 64, "", "tensorrt", "10.3.0", "Orin", "8.7", "fp32", (1, 1, 8), ("typing=strong",)
)
SPEC = Spec("plain", "resnet18", ("crow", "finch"), Preprocess(10, 8), Input(8, 8))


def every(examples: int, check: Callable[[int], None]) -> None:
    """Call `check` with so many seeds."""
    settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )(given(SEEDS)(check))()


def counts(quick: int, slow: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("examples", [quick, pytest.param(slow, marks=pytest.mark.slow)])


def camera_report() -> dict[str, Any]:
    """A small report with every kind of row."""
    report = sample_report()
    report["rows"] = report["rows"][:2]
    report["per_class"] = {name: classes[16:20] for name, classes in report["per_class"].items()}
    camera = {
        "source": "replay", "fps_offered": 30.0, "fps_answered": 29.5,
        "offered": 100, "answered": 99, "dropped": 1, "missed": 0,
        "age_p50_ms": 12.0, "age_p90_ms": 13.0, "age_p95_ms": 14.0, "age_p99_ms": None,
        "age_max_ms": 20.0,
    }  # fmt: skip
    power = {"mean_w": 7.5, "sensor": "VDD_IN", "readings": 15}
    report["rows"].append(
        sample_row(
            "plain",
            "fp16",
            p50=40.0,
            right=None,
            mode="camera",
            camera=camera,
            power=power,
            energy_mj=80.0,
        )
    )
    return report


def each_report(file: Path, examples: int, use: Callable[[Any], object]) -> None:
    """Call `use` with every changed report that is read; the others must be refused as data."""
    document = camera_report()

    def check(seed: int) -> None:
        file.write_bytes(nearly(document, seed))
        try:
            content = read_report(file)
        except DataError:
            return
        use(content)

    every(examples, check)


@counts(300, 6_000)
def test_no_report_raises_an_untyped_error(tmp_path: Path, examples: int) -> None:
    from finedge.runtime.report.markdown import markdown
    from finedge.runtime.report.picture import picture

    def use(content: Any) -> None:
        markdown(content).encode()
        drawn = picture(content["rows"], width=340, height=340)
        assert drawn is None or len(drawn.x_ticks) + len(drawn.y_ticks) < 100

    each_report(tmp_path / "report.json", examples, use)


@counts(15, 1_000)
def test_every_report_that_is_read_becomes_a_page(tmp_path: Path, examples: int) -> None:
    pytest.importorskip("jinja2")
    from finedge.runtime.report.html import page

    each_report(tmp_path / "report.json", examples, lambda content: page(content).encode())


HEADERS = (
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 3), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (8, 8, 3), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 8, 3), }",
    "[" * 500,
    "(1, 2)",
)


def golden_bytes(whole: bytes, members: dict[str, bytes], chance: Random) -> bytes:
    """Return an archive with a piece changed, or one whose arrays or names are."""
    if chance.random() < 0.5:
        return garbled(whole, chance)
    changed = dict(members)
    name = chance.choice(sorted(changed))
    text = f"{chance.choice(HEADERS)}\n".encode()
    headed = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + noise(chance)
    changed[name] = chance.choice((headed, garbled(changed[name], chance)))
    if chance.random() < 0.2:
        changed[chance.choice((" ", "x", "tap/\udc80.npy", "../a.npy", "frame"))] = changed.pop(
            name
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as archive:
        for member, data in changed.items():
            archive.writestr(member.encode(errors="replace").decode(), data)
    return buffer.getvalue()


@counts(300, 5_000)
def test_no_golden_file_raises_an_untyped_error(tmp_path: Path, examples: int) -> None:
    arrays = {
        "frame": np.zeros((12, 16, 3), np.uint8),
        "input": np.zeros((8, 8, 3), np.uint8),
        "tap/a": np.zeros(5, np.float32),
        "model.fp32.onnx/logits": np.zeros((1, 2), np.float32),
    }
    bundle = Bundle.create(
        tmp_path / "b.finedge", SPEC, files={GOLDEN: pack(arrays)}, provenance={}
    )
    whole = bundle.file(GOLDEN).read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def check(seed: int) -> None:
        bundle.file(GOLDEN).write_bytes(golden_bytes(whole, members, Random(seed)))
        try:
            found = read_golden(bundle)
            assert found["input"].shape == (8, 8, 3)
            assert found["frame"].nbytes < 2**24
        except BundleError:
            return

    every(examples, check)


@counts(200, 4_000)
def test_no_record_of_an_engine_is_believed_but_its_own(tmp_path: Path, examples: int) -> None:
    store = EngineStore(tmp_path / "engines")
    kept = store.keep(
        KEY, b"an engine", {"attention": {"considered": ["decomposed"]}, "seconds": 1.5}
    )
    file = kept.path.with_suffix(".json")
    document = json.loads(file.read_text())

    def check(seed: int) -> None:
        data = nearly(document, seed)
        file.write_bytes(data)
        found = store.find(KEY)
        assert found is None or dict(found.record) == document
        assert store.nearest(KEY) == found

    every(examples, check)


@counts(100, 2_000)
def test_no_mark_of_a_folder_raises_an_untyped_error(tmp_path: Path, examples: int) -> None:
    document = json.loads(json.dumps(vars(RenderPlan(12, 60, 10, 30, 224, 0))))

    def check(seed: int) -> None:
        (tmp_path / RECORD).write_bytes(nearly(document, seed))
        plan = _recorded_plan(tmp_path)
        assert plan is None or 2 <= plan.classes <= 24

    every(examples, check)


@counts(100, 2_000)
def test_no_record_of_a_data_set_raises_an_untyped_error(tmp_path: Path, examples: int) -> None:
    pytest.importorskip("torch")
    from finedge.train.data.build import RECORD as MADE
    from finedge.train.data.build import _record

    document = {
        "schema": 1,
        "name": "cub",
        "verified": ["a.tgz"],
        "counts": {"train": 3},
        "archives": [{"file": "a.tgz", "url": "u"}],
    }

    def check(seed: int) -> None:
        (tmp_path / MADE).write_bytes(nearly(document, seed))
        try:
            made = _record(tmp_path, "cub")
        except (DataError, UsageError):
            return
        assert made is not None
        assert all(isinstance(name, str) for name in made.verified)

    every(examples, check)


@counts(100, 2_000)
def test_no_key_raises_an_untyped_error(examples: int) -> None:
    document = KEY.to_json() | {"profile": [1, 1, 8], "flags": ["typing=strong"]}

    def check(seed: int) -> None:
        data = json.loads(json_bytes(edited(document, Random(seed))))
        try:
            assert EngineKey.from_json(data).digest()
        except BundleError:
            return

    every(examples, check)
