"""A whole benchmark of a tiny real bundle: what it writes, what it refuses, what is INVALID."""

from __future__ import annotations

import gzip
import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finedge.bundle import FLOAT_FILE, HALF_FILE, Bundle
from finedge.errors import DataError, FinedgeError, InvalidBenchmark, SystemProblem, UsageError
from finedge.measure import percentile
from finedge.runtime.benchmark.frames import rendered_frames
from finedge.runtime.benchmark.lane import TOTAL, BenchmarkLane
from finedge.runtime.benchmark.modes import Mode
from finedge.runtime.benchmark.run import interleave
from finedge.runtime.benchmark.schedule import schedule
from finedge.runtime.classifier import Classifier
from finedge.runtime.evaluate.command import evaluate
from finedge.runtime.evaluate.labelled import SplitOptions
from tests.runtime.benchmark.conftest import run_benchmark

Report = Callable[[Path], dict[str, str]]
DESIGN_KEYS = {
    "model", "variant", "backend", "device", "batch", "mode", "n", "p50_ms", "p90_ms", "p95_ms",
    "p99_ms", "top1", "top5", "wilson95", "valid", "invalid_reasons",
}  # fmt: skip


def quick(*bundles: Path, **options: Any) -> dict[str, Any]:
    return run_benchmark(bundles, **{"duration": "150ms", "threads": 1, "images": 6, **options})


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return content


def read_samples(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress((folder / "samples.json.gz").read_bytes()))
    return content


@pytest.fixture
def other_bundle(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "other.finedge"))


def test_every_variant_gets_a_row_with_the_documented_keys(
    tiny_bundle: Bundle, tiny_data: Path
) -> None:
    result = quick(tiny_bundle.path, data=tiny_data)
    assert [r["variant"] for r in result["rows"]] == ["fp32", "int8"]
    assert all(set(r) >= DESIGN_KEYS for r in result["rows"])
    assert all(r["valid"] and r["n"] > 0 and r["p50_ms"] > 0 for r in result["rows"])
    assert read(tiny_bundle.path)["rows"] == json.loads(json.dumps(result["rows"]))


def test_float16_is_measured_on_a_cpu_only_where_it_is_named(tiny_bundle: Bundle) -> None:
    tiny_bundle.extend("export", {HALF_FILE: tiny_bundle.file(FLOAT_FILE)}, {})
    assert [r["variant"] for r in quick(tiny_bundle.path)["rows"]] == ["fp32", "int8"]
    assert [r["variant"] for r in quick(tiny_bundle.path, variants="fp16")["rows"]] == ["fp16"]


def test_the_file_that_ran_is_named(tiny_bundle: Bundle) -> None:
    row = quick(tiny_bundle.path, variants="int8")["rows"][0]
    assert row["file"] == "model.int8.cpu.onnx"
    assert row["file_bytes"] == tiny_bundle.file("model.int8.cpu.onnx").stat().st_size


def test_the_stages_make_up_the_headline(tiny_bundle: Bundle) -> None:
    row = quick(tiny_bundle.path, variants="fp32")["rows"][0]
    lane = read_samples(tiny_bundle.path)["lanes"][0]["ms"]
    inside = [
        a + b + c for a, b, c in zip(lane["preprocess"], lane["infer"], lane["post"], strict=True)
    ]
    assert all(part <= total + 1e-3 for part, total in zip(inside, lane[TOTAL], strict=True))
    assert percentile(inside, 50) > 0.8 * percentile(lane[TOTAL], 50)
    assert row["p50_ms"] == pytest.approx(percentile(lane[TOTAL], 50), abs=1e-3)
    assert row["stages_p50_ms"]["decode"] is None  # 6 images are too few for a median


def test_the_accuracy_is_that_of_evaluate(tiny_bundle: Bundle, tiny_data: Path) -> None:
    rows = quick(tiny_bundle.path, data=tiny_data)["rows"]
    for row in rows:
        expected = evaluate(
            tiny_bundle.path, dataset=SplitOptions(data=tiny_data), variant=row["variant"]
        )
        assert (row["top1"], row["top5"], list(row["wilson95"]), row["accuracy_n"]) == (
            expected["top1"],
            expected["top5"],
            expected["wilson95"],
            18,
        )
    assert rows[0]["mcnemar_p"] is None
    assert rows[1]["mcnemar_p"] is not None


def test_blocks_interleave_and_samples_are_kept(tiny_bundle: Bundle, tiny_data: Path) -> None:
    rows = quick(tiny_bundle.path, data=tiny_data)["rows"]
    kept = read_samples(tiny_bundle.path)
    for row, lane in zip(rows, kept["lanes"], strict=True):
        assert len(lane["ms"][TOTAL]) == row["n"]
        assert len(lane["block_starts"]) == 3
        assert lane["block_starts"][0] == 0
        assert lane["block_starts"] == sorted(set(lane["block_starts"]))
    assert [a["variant"] for a in kept["answers"]] == ["fp32", "int8"]
    assert all(len(a["top1"]) == 18 for a in kept["answers"])
    assert len(kept["decode_ms"]) == 6


def test_lanes_take_turns_and_see_the_same_frames_in_the_same_order(tiny_bundle: Bundle) -> None:
    seen: list[str] = []

    class Noted(BenchmarkLane):
        def query(self, *, record: bool) -> float:
            if record and (not seen or seen[-1] != self.bundle):
                seen.append(self.bundle)
            return super().query(record=record)

    frames = rendered_frames(3)
    with Classifier.open(tiny_bundle, variant="fp32", threads=1) as classifier:
        lanes = [Noted(name, classifier, Mode("single-stream", 1), frames) for name in "ab"]
        interleave(lanes, schedule("60ms"))
    assert seen == ["a", "b"] * 3


def test_both_modes_stand_apart_and_offline_counts_images(tiny_bundle: Bundle) -> None:
    rows = quick(tiny_bundle.path, mode="single-stream,offline", batch=4, variants="fp32")["rows"]
    assert [(r["mode"], r["batch"]) for r in rows] == [("single-stream", 1), ("offline", 4)]
    total = sum(read_samples(tiny_bundle.path)["lanes"][1]["ms"][TOTAL])
    assert rows[1]["images_per_second"] == pytest.approx(4 * rows[1]["n"] / total * 1e3, rel=1e-3)


@pytest.fixture
def report() -> Report:
    pytest.importorskip("jinja2", reason="the [report] extra is not installed")
    return importlib.import_module("finedge.runtime.report.command").report


def test_several_bundles_are_compared_with_the_first(
    report: Report, tiny_bundle: Bundle, other_bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    result = quick(tiny_bundle.path, other_bundle, data=tiny_data, out=tmp_path / "both")
    assert [(r["bundle"], r["variant"]) for r in result["rows"]] == [
        ("tiny", "fp32"),
        ("tiny", "int8"),
        ("other", "fp32"),
        ("other", "int8"),
    ]
    assert [(c["first"], c["second"], c["variant"], c["flips"]) for c in result["comparisons"]] == [
        ("tiny", "other", "fp32", 0),
        ("tiny", "other", "int8", 0),
    ]
    assert set(read(tmp_path / "both")["per_class"]) == {"tiny", "other"}
    assert (
        "other is not shown to be more accurate than tiny at FP32."
        in Path(report(tmp_path / "both")["markdown"]).read_text()
    )


def test_bundles_of_one_name_are_told_apart(tiny_bundle: Bundle, tmp_path: Path) -> None:
    twin = shutil.copytree(tiny_bundle.path, tmp_path / "elsewhere" / tiny_bundle.path.name)
    result = quick(tiny_bundle.path, twin, variants="fp32")
    assert result["rows"][1]["bundle"] == "elsewhere/tiny"


def test_without_labelled_data_scenes_are_rendered_and_accuracy_is_null(
    report: Report, tiny_bundle: Bundle, tiny_data: Path
) -> None:
    shutil.rmtree(tiny_data)
    row = quick(tiny_bundle.path, variants="fp32")["rows"][0]
    assert (row["top1"], row["wilson95"], row["accuracy_note"]) == (
        None,
        None,
        "not measured: no labelled data",
    )
    assert read(tiny_bundle.path)["method"]["frames_from"] == "rendered scenes"
    assert Path(report(tiny_bundle.path)["html"]).is_file()


def test_the_recorded_data_is_the_default(tiny_bundle: Bundle) -> None:
    assert quick(tiny_bundle.path, variants="fp32")["rows"][0]["accuracy_n"] == 18


def test_accuracy_images_limits_and_says_so(tiny_bundle: Bundle) -> None:
    row = quick(tiny_bundle.path, variants="fp32", accuracy_images=7)["rows"][0]
    assert row["accuracy_n"] == 7
    assert "at most 7 images" in row["accuracy_note"]


def assert_invalid(bundle: Path, reason: str, **options: Any) -> None:
    """The run exits with 6, prints its rows, and writes them."""
    with pytest.raises(InvalidBenchmark, match="INVALID") as caught:
        quick(bundle, variants="fp32", **options)
    assert caught.value.exit_code == 6
    row = read(bundle)["rows"][0]
    assert row["valid"] is False
    assert reason in row["invalid_reasons"][0]
    assert caught.value.result is not None
    assert json.loads(json.dumps(caught.value.result))["rows"] == [row]


def test_a_percentile_the_sample_cannot_support_is_invalid(tiny_bundle: Bundle) -> None:
    assert_invalid(
        tiny_bundle.path, "p99.9 was asked for: needs 6636", percentile="50,99.9", duration="30ms"
    )


def test_an_accuracy_below_the_gate_is_invalid(tiny_bundle: Bundle, tiny_data: Path) -> None:
    shutil.move(
        tiny_data / "test" / "red" / "0.png", tiny_data / "test" / "blue" / "9.png"
    )  # a wrong label: 17 of 18 at best
    assert_invalid(tiny_bundle.path, "is below the gate 0.99", data=tiny_data, gate=0.99)


def test_a_gate_that_cannot_be_checked_is_invalid(tiny_bundle: Bundle, tiny_data: Path) -> None:
    shutil.rmtree(tiny_data)
    assert_invalid(tiny_bundle.path, "accuracy was not measured", gate=0.5)


WRONG: list[dict[str, Any]] = [
    {"variants": "int4"},
    {"mode": "fast"},
    {"percentile": "98"},
    {"gate": 85.0},
    {"duration": "soon"},
    {"images": 0},
    {"backend": "cuda"},
    {"threads": 0},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_wrong_options_are_usage_errors(tiny_bundle: Bundle, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        quick(tiny_bundle.path, **options)
    assert not (tiny_bundle.path / "report.json").exists()


def test_a_bundle_given_twice_or_not_at_all_is_a_usage_error(tiny_bundle: Bundle) -> None:
    for bundles in ((), (tiny_bundle.path, tiny_bundle.path)):
        with pytest.raises(UsageError):
            quick(*bundles)


def test_data_with_other_classes_is_refused(tiny_bundle: Bundle, tiny_data: Path) -> None:
    for split in tiny_data.iterdir():
        (split / "red").rename(split / "pink")
    with pytest.raises(DataError, match="pink"):
        quick(tiny_bundle.path, data=tiny_data)


def test_a_variant_the_bundle_lacks_names_the_command_that_makes_it(make_bundle: Any) -> None:
    bare = make_bundle("bare", files=("model.fp32.onnx",))
    with pytest.raises(FinedgeError, match="finedge calibrate"):
        quick(bare.path, variants="fp32,int8")


def test_a_place_that_is_no_folder_is_told_before_measuring(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemProblem, match="file"):
        quick(tiny_bundle.path, out=tmp_path / "file")


def test_an_old_report_stays_when_the_run_fails(tiny_bundle: Bundle, tiny_data: Path) -> None:
    quick(tiny_bundle.path, variants="fp32")
    before = (tiny_bundle.path / "report.json").read_bytes()
    with pytest.raises(DataError):
        quick(tiny_bundle.path, data=tiny_data, split="tests")
    assert (tiny_bundle.path / "report.json").read_bytes() == before
    assert Bundle.load(tiny_bundle.path).variants() == ("fp32", "int8")
