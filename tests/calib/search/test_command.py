"""`finedge calibrate --max-drop` and `--pick` on a small bundle."""

import json
import shutil

import onnx
import pytest

from finedge.bundle import CPU_FILE, PORTABLE_FILE, Bundle
from finedge.calib.quantizers.report import RESTORED
from finedge.calib.search.table import show_search
from tests.calib.search.conftest import calibrate


def float_weights(path):
    graph = onnx.load(path).graph
    floats = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    return {n.name for n in graph.node if n.op_type in ("Conv", "Gemm") and n.input[1] in floats}


def test_the_fastest_point_within_the_budget_makes_the_files(searched):
    record = Bundle.load(searched.path).provenance["calibrate"]
    found = record["search"]
    points = found["points"]
    picked = points[found["pick"] - 1]
    assert picked["within"]
    assert picked["drop"] <= searched.budget / 100
    assert not any(p["within"] for p in points[: found["pick"] - 1])
    assert [p["ms"] for p in points] == sorted(p["ms"] for p in points)
    assert (found["max_drop"], found["images"]) == (searched.budget, 32)


def test_the_layers_in_float_are_so_in_both_files_with_the_reason(searched):
    loaded = Bundle.load(searched.path)
    record = loaded.provenance["calibrate"]
    layers = record["search"]["points"][record["search"]["pick"] - 1]["in_float"]
    assert layers
    for name in (PORTABLE_FILE, CPU_FILE):
        placed = record["placements"][name]
        assert {placed["stays_float"][layer] for layer in layers} == {RESTORED}
        assert not set(layers) & set(placed["int8"])
        assert set(layers) <= float_weights(loaded.file(name))


def test_another_point_is_picked_without_a_search(searched, picture_folder, tmp_path, capsys):
    bundle = shutil.copytree(searched.path, tmp_path / "copy.finedge")
    assert calibrate(bundle, picture_folder, "--pick", "1") == 0
    result = json.loads(capsys.readouterr().out)
    record = Bundle.load(bundle).provenance["calibrate"]
    first = record["search"]["points"][0]
    assert result["search"]["pick"] == record["search"]["pick"] == 1
    stays = set(record["placements"][PORTABLE_FILE]["stays_float"])
    assert set(first["in_float"]) <= stays
    assert calibrate(bundle, picture_folder, "--pick", "99") == 2


def test_a_budget_that_cannot_be_met_reports_the_best_and_changes_nothing(
    bundle, picture_folder, short_timing, capsys
):
    assert calibrate(bundle.path, picture_folder, "--max-drop", "0", "--no-bias-correction") == 5
    streams = capsys.readouterr()
    result = json.loads(streams.out)
    assert result["best"] in result["points"]
    assert "--max-drop 0 cannot be met" in streams.err
    assert Bundle.load(bundle.path) == bundle


@pytest.mark.parametrize(
    "options",
    [
        ("--max-drop", "-1"),
        ("--max-drop", "101"),
        ("--pick", "0"),
        ("--pick", "1"),  # nothing was searched yet
        ("--max-drop", "1", "--pick", "1"),
    ],
)
def test_options_that_cannot_be_are_usage_errors(bundle, picture_folder, options):
    assert calibrate(bundle.path, picture_folder, *options) == 2
    assert Bundle.load(bundle.path) == bundle


def test_too_few_images_to_search_with_are_a_data_error(bundle, picture_folder, tmp_path, capsys):
    data = shutil.copytree(picture_folder, tmp_path / "data")
    for path in sorted((data / "train").rglob("*.png"))[8:]:
        path.unlink()
    assert calibrate(bundle.path, data, "--max-drop", "1") == 4
    assert "too few training images to search with" in capsys.readouterr().err


def test_the_table_has_a_row_for_each_point(searched, render_text):
    record = Bundle.load(searched.path).provenance["calibrate"]["search"]
    text = render_text(show_search(record))
    assert f"at most {searched.budget:g} points of top-1 may be lost" in text
    assert text.count("%") >= len(record["points"])
