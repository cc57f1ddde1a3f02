"""`finedge sensitivity`."""

import json
from xml.etree import ElementTree

from finedge.bundle import Bundle
from finedge.calib.sensitivity.plot import ranking_svg
from finedge.cli import main


def test_the_command_ranks_the_layers_and_draws_them(bundle, picture_folder, tmp_path, capsys):
    plot = tmp_path / "layers.svg"
    words = ["sensitivity", str(bundle.path), "--data", str(picture_folder), "--images", "32"]
    assert main([*words, "--plot", str(plot)]) == 4  # 48 images: a third of them is too few
    assert "too few training images" in capsys.readouterr().err
    words += ["--calibration-images", "16", "--plot", str(plot)]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    costs = [row["kl"] for row in result["layers"]]
    assert costs == sorted(costs, reverse=True)
    assert len(plot.read_text().split("of MACs")) == len(costs) + 1
    assert Bundle.load(bundle.path) == bundle


def test_few_images_are_a_usage_error(bundle, picture_folder):
    words = ["sensitivity", str(bundle.path), "--data", str(picture_folder)]
    assert main([*words, "--images", "8"]) == 2


def test_a_layer_may_have_any_name():
    row = {"layer": "a", "module": "<script>&\x1b[31m", "kind": "Conv", "macs": 0.5, "kl": 0.0}
    picture = ranking_svg([row, {**row, "kl": 2.0}], title="</svg>")
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg")
    assert "\x1b" not in picture
