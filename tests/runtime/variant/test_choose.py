"""What `auto` runs: the rule, what is remembered, and what is never measured."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict

import pytest

from finedge.cli import main
from finedge.confidence import STAGE
from finedge.errors import UsageError
from finedge.provenance import REDUCED, AccuracyCost
from finedge.runtime.classifier import Classifier
from finedge.runtime.variant import memory
from finedge.runtime.variant.choose import SWITCH
from finedge.runtime.variant.memory import SIDECAR, one_at_a_time
from finedge.runtime.variant.rule import decide
from finedge.runtime.variant.timing import Timing
from finedge.temporary_files import folder_lock

HALF_POINT = AccuracyCost(1000, 0.9, -0.005, (-0.01, 0.0), 0.03, 9, "val")
BY_CHANCE = AccuracyCost(200, 0.88, -0.02, (-0.05, 0.01), 0.2, 12, "val")
BEYOND_CHANCE = AccuracyCost(1000, 0.88, -0.02, (-0.03, -0.01), 0.001, 40, "val")
TOO_MANY_POINTS = AccuracyCost(296, 0.85, -0.037, (-0.076, 0.002), 0.09, 37, "val")
FAST, SLOW, EQUAL = {"fp32": 2.0, "int8": 1.0}, {"fp32": 1.0, "int8": 2.0}, {"fp32": 1, "int8": 1}
THREADS = 1


def auto(bundle, **options):
    """Return the variant that auto opens, and the choice."""
    with Classifier.open(bundle, **{"threads": THREADS, **options}) as classifier:
        return classifier.variant, classifier.choice


def with_record(bundle, **record):
    return bundle.extend(STAGE, {}, record)


@pytest.mark.parametrize(
    ("ms", "cost", "variant", "words"),
    [
        (FAST, None, "int8", "2.00x as fast as FP32"),
        (FAST, HALF_POINT, "int8", "0.5 points lower"),
        (FAST, BY_CHANCE, "int8", "not beyond chance, McNemar p = 0.20"),
        (FAST, BEYOND_CHANCE, "fp32", "but its top-1 is 2.0 points lower"),
        (FAST, TOO_MANY_POINTS, "fp32", "more than 2 points are not left to chance"),
        (SLOW, HALF_POINT, "fp32", "is not faster than FP32: 0.50x as fast"),
        (EQUAL, HALF_POINT, "fp32", "is not faster than FP32: 1.00x as fast"),
    ],
)
def test_int8_must_be_faster_and_as_accurate(ms, cost, variant, words):
    timing = Timing({name: (value,) * 8 for name, value in ms.items()})
    costs = {} if cost is None else {"int8": cost}
    chosen, (verdict,) = decide(timing, ("fp32", "int8"), costs=costs, islands={})
    assert chosen == variant
    assert words in verdict.reason


def test_noise_that_hides_the_difference_is_named():
    timing = Timing({"fp32": (1.0, 3.0) * 4, "int8": (2.0,) * 8})
    chosen, (verdict,) = decide(timing, ("fp32", "int8"), costs={}, islands={"int8": "2 nodes"})
    assert chosen == "fp32"
    assert "shows no difference in speed from FP32" in verdict.reason
    assert verdict.reason.endswith("; 2 nodes")


def test_int8_must_beat_the_faster_float_variant():
    timing = Timing({"fp32": (4.0,) * 8, "fp16": (1.0,) * 8, "int8": (2.0,) * 8})
    chosen, verdicts = decide(timing, ("fp32", "fp16", "int8"), costs={}, islands={})
    assert chosen == "fp16"
    assert verdicts[1].other == "fp16"


def test_the_first_opening_measures_and_the_second_remembers(timer, tiny_bundle):
    assert auto(tiny_bundle)[1].basis == "measured"
    variant, choice = auto(tiny_bundle)
    assert (variant, choice.basis, timer.runs) == ("int8", "remembered", 1)


def test_a_slower_int8_is_not_run_and_a_warning_names_what_stays_in_float(
    timer, tiny_bundle, caplog
):
    timer.ms = dict(SLOW)
    stays = {"gemm": "it decides"}
    with_record(tiny_bundle, placements={"model.int8.cpu.onnx": {"stays_float": stays}})
    with caplog.at_level(logging.WARNING):
        assert auto(tiny_bundle.path)[0] == "fp32"
    assert "auto runs FP32 on this machine: INT8 is not faster" in caplog.text
    assert "1 nodes stay in float: 1 (gemm): it decides" in caplog.text


def test_an_explicit_variant_measures_nothing(timer, tiny_bundle):
    assert auto(tiny_bundle, variant="int8") == ("int8", None)
    assert timer.runs == 0


def test_one_variant_needs_no_measurement(timer, make_bundle):
    variant, choice = auto(make_bundle(files=("model.fp32.onnx",)))
    assert (variant, choice.basis, timer.runs) == ("fp32", "single", 0)


def test_the_switch_turns_the_check_off(timer, tiny_bundle, monkeypatch):
    monkeypatch.setenv(SWITCH, "off")
    assert auto(tiny_bundle)[1].basis == "unchecked"
    monkeypatch.setenv(SWITCH, "perhaps")
    with pytest.raises(UsageError, match="FINEDGE_VARIANT_CHECK=perhaps"):
        auto(tiny_bundle)
    assert timer.runs == 0


def test_the_record_of_the_calibration_decides_on_accuracy(timer, tiny_bundle):
    with_record(tiny_bundle, accuracy={"int8": asdict(BEYOND_CHANCE)})
    variant, choice = auto(tiny_bundle.path)
    assert variant == "fp32"
    assert "on 1000 held-out images" in choice.reason


def test_where_products_saturate_the_record_of_cut_weights_counts(timer, tiny_bundle, monkeypatch):
    monkeypatch.setenv("FINEDGE_CPU_INT8", "saturating")
    with_record(tiny_bundle, accuracy={"int8": asdict(HALF_POINT), REDUCED: asdict(BEYOND_CHANCE)})
    assert auto(tiny_bundle.path)[0] == "fp32"


@pytest.mark.parametrize(
    "change",
    [
        lambda bundle, patch: auto(bundle, threads=THREADS + 1),
        lambda bundle, patch: auto(bundle, spin=True),
        lambda bundle, patch: auto(with_record(bundle, accuracy={"int8": asdict(HALF_POINT)}).path),
        lambda bundle, patch: (
            patch.setattr(memory, "installed", lambda: {"onnxruntime": "99"}),
            auto(bundle),
        ),
        lambda bundle, patch: (patch.setattr(memory, "cpu_name", lambda: "other"), auto(bundle)),
        lambda bundle, patch: auto(bundle.extend("note", {"a.bin": b"a"}, {}).path),
    ],
    ids=["threads", "spin", "accuracy", "versions", "cpu", "files"],
)
def test_another_question_is_measured_again(timer, tiny_bundle, monkeypatch, change):
    auto(tiny_bundle)
    change(tiny_bundle, monkeypatch)
    assert timer.runs == 2


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"key": {}, "choice": {}}', "same key"])
def test_a_damaged_memory_is_measured_again(timer, tiny_bundle, tmp_path, damage):
    auto(tiny_bundle)
    (file,) = (tmp_path / "cache" / memory.FOLDER).glob("*.json")
    content = json.loads(file.read_text())
    file.write_text(damage)
    if damage == "same key":
        file.write_text(json.dumps({**content, "choice": {"variant": "fp64"}}))
    assert auto(tiny_bundle)[0] == "int8"
    assert timer.runs == 2
    assert json.loads(file.read_text())["key"] == content["key"]


def test_a_cache_that_cannot_be_written_costs_a_warning(timer, tiny_bundle, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    for _ in range(2):
        assert auto(tiny_bundle)[0] == "int8"
    assert timer.runs == 2
    assert caplog.text.count("is measured at every start") == 1


def test_an_unclear_result_is_measured_again_an_hour_later(timer, tiny_bundle, monkeypatch):
    timer.blocks = 1  # too few to show anything
    now = 1_800_000_000.96  # rounded up, it would be in the future
    monkeypatch.setattr(memory.time, "time", lambda: now)
    for _ in range(2):
        assert auto(tiny_bundle)[0] == "fp32"
    assert timer.runs == 1
    monkeypatch.setattr(memory.time, "time", lambda: now + memory.UNCLEAR_S + 60)
    auto(tiny_bundle)
    assert timer.runs == 2


def test_the_oldest_memories_go(timer, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MAX_FILES", 2)
    for threads in (1, 2, 3):
        auto(tiny_bundle, threads=threads)
    assert len(list((tmp_path / "cache" / memory.FOLDER).glob("*.json"))) == 2


def test_a_second_process_waits_and_takes_the_result_of_the_first(timer, tiny_bundle, tmp_path):
    auto(tiny_bundle)
    (file,) = (tmp_path / "cache" / memory.FOLDER).glob("*.json")
    content = file.read_bytes()
    file.unlink()
    with one_at_a_time():
        second = threading.Thread(target=auto, args=(tiny_bundle,))
        second.start()
        second.join(0.2)
        assert second.is_alive()
        file.write_bytes(content)
    second.join(30)
    assert timer.runs == 1


def test_the_process_that_measures_does_not_wait_for_itself(timer, tiny_bundle, tmp_path):
    auto(tiny_bundle)
    with one_at_a_time(), folder_lock(tmp_path / "cache" / memory.FOLDER) as has_lock:
        assert has_lock


def test_a_choice_in_the_bundle_serves_another_account(timer, tiny_bundle, tmp_path, monkeypatch):
    timer.ms = dict(SLOW)
    options = ["--threads", str(THREADS), "--in-bundle"]
    assert main(["choose", str(tiny_bundle.path), *options]) == 0
    assert (tiny_bundle.path / SIDECAR).is_file()
    monkeypatch.setenv("FINEDGE_CACHE", str(tmp_path / "other account"))
    assert auto(tiny_bundle)[0] == "fp32"
    assert timer.runs == 1


@pytest.mark.parametrize(("ms", "code"), [(FAST, 0), (SLOW, 1)])
def test_choose_can_require_that_int8_is_faster(timer, tiny_bundle, ms, code, capsys):
    timer.ms = dict(ms)
    assert main(["choose", str(tiny_bundle.path), "--require-faster"]) == code
    printed = capsys.readouterr()
    assert json.loads(printed.out)["ms"] == ms
    assert ("INT8 is not faster than FP32" in printed.err) == bool(code)


def test_the_real_timer_asks_every_variant(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv(SWITCH, "on")
    monkeypatch.setenv("FINEDGE_CACHE", str(tmp_path))
    choice = auto(tiny_bundle)[1]
    assert choice.basis == "measured"
    assert choice.ms.keys() == {"fp32", "int8"}
    assert min(choice.ms.values()) > 0
