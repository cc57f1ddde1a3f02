import doctest
import json
from pathlib import Path

import pytest

from finedge.cli import main
from finedge.runtime.early_exit import record as records
from finedge.runtime.early_exit.record import exits_text
from finedge.runtime.report.content import read_report
from tests.runtime.benchmark.conftest import run_benchmark
from tests.runtime.early_exit.conftest import HEAD


def test_evaluate_gives_share_and_accuracy_of_each_exit(make_early_bundle, tiny_data, capsys):
    bundle = make_early_bundle(threshold=0.0)
    options = ["--variant", "int8", "--backend", "onnxruntime", "--early-exit", "--json"]
    code = main(["evaluate", str(bundle.path), "--data", str(tiny_data), *options])
    record = json.loads(capsys.readouterr().out)
    assert (
        exits_text(record["early_exit"]) == "100.0 % left at local_0 (100.0 % right), 0.0 % at end"
    )
    assert code == 0
    head, end = record["early_exit"]["exits"]
    assert record["early_exit"]["share"] == 1.0
    assert (head["output"], head["n"], head["top1"]) == (HEAD, record["n"], record["top1"])
    assert (end["output"], end["n"], end["top1"]) == ("end", 0, None)


def test_the_examples_of_the_texts_are_true():
    assert doctest.testmod(records).failed == 0


def test_classify_logs_where_frames_left(make_early_bundle, tiny_data, capsys):
    bundle = make_early_bundle(threshold=0.0)
    photos = str(tiny_data / "test" / "red")
    code = main(["classify", str(bundle.path), photos, "--variant", "int8", "--early-exit"])
    output = capsys.readouterr()
    assert code == 0
    assert len(output.out.splitlines()) == 3
    assert f"early exit: 100.0% at {HEAD}, 0.0% at end" in output.err


@pytest.mark.parametrize("command", ["evaluate", "benchmark"])
def test_without_segments_the_commands_exit_with_4(tiny_bundle, tiny_data, command, capsys):
    options = ["--data", str(tiny_data), "--early-exit"]
    assert main([command, str(tiny_bundle.path), *options]) == 4
    assert "finedge export RUN --out BUNDLE --segments" in capsys.readouterr().err


def test_benchmark_measures_a_bundle_with_and_without_exits(
    make_early_bundle, tiny_bundle, tiny_data, tmp_path
):
    early = make_early_bundle(threshold=0.0)
    report = run_benchmark(
        [tiny_bundle.path, early.path],
        out=tmp_path / "report",
        variants="fp32",
        duration="100ms",
        backend="onnxruntime",
        data=tiny_data,
        early_exit=True,
    )
    rows = report["rows"]
    assert [row["bundle"] for row in rows] == ["tiny", "early", "early"]
    assert all(row["mean_ms"] > 0 for row in rows)
    assert [bool(row["early_exit"]) for row in rows] == [False, False, True]
    record = rows[2]["early_exit"]
    assert record["whole_mean_ms"] == rows[1]["mean_ms"]
    assert record["share"] == 1.0
    assert record["timed_frames"] == {HEAD: 1.0, "end": 0.0}
    assert record["against_whole"]["flips"] >= 0
    compared = [(entry["second"], entry["early_exit"]) for entry in report["comparisons"]]
    assert compared == [("early", False), ("early", True)]
    written = read_report(Path(report["report"]))
    assert written["rows"][2]["early_exit"]["exits"][0]["share"] == 1.0
    assert written["exits"]["early"]["macs"] == {HEAD: 0.5}
    assert list(written["per_class"]) == list(written["reliability"]) == ["tiny", "early"]
