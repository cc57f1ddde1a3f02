"""The command: what it writes, what it leaves alone, what it refuses."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from finedge.bundle import Bundle
from finedge.cli import main
from finedge.runtime.explain.command import explain
from finedge.runtime.explain.explainer import Explainer
from finedge.runtime.explain.views import ExplainOptions


@pytest.fixture
def photos(tmp_path):
    """Two folders with a picture of the same name, one of another size."""
    rng = np.random.default_rng(1)
    for folder, size in (("finch", (90, 70)), ("wren", (64, 64))):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        cv2.imwrite(
            str(tmp_path / "photos" / folder / "a photo.png"),
            cv2.resize(rng.integers(0, 255, (5, 5, 3), np.uint8), size),
        )
    return tmp_path / "photos"


def test_each_image_becomes_a_png_on_one_page_with_its_numbers(
    make_bundle, photos, tmp_path, capsys
):
    bundle, out = make_bundle("cnl").bundle, tmp_path / "out"
    before = {p: p.stat().st_mtime_ns for p in bundle.path.rglob("*")}
    assert main(["explain", str(bundle.path), str(photos), "--out", str(out), "--contrast"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["out"] == str(out)
    assert [i["png"] for i in result["images"]] == ["a photo.png", "wren-a photo.png"]
    assert sorted(p.name for p in out.iterdir()) == [
        "a photo.png",
        "explain.json",
        "index.html",
        "wren-a photo.png",
    ]
    for image in result["images"]:
        assert Image.open(out / image["png"]).width > 3 * 320
    assert {p: p.stat().st_mtime_ns for p in bundle.path.rglob("*")} == before

    record = json.loads((out / "explain.json").read_text())
    assert record["digest"] == Bundle.load(bundle.path).digest()
    views = record["images"][0]["views"]
    assert [v["kind"] for v in views] == ["attention"] * 4 + ["cam"] * 2
    for view in views:
        (numbers,) = view["maps"]
        assert numbers["min"] <= numbers["mean"] <= numbers["max"]
        assert 0 <= numbers["effective_positions"] <= np.prod(view["grid"]) * (1 + 1e-9)
        assert all(-0.5 <= c <= 1.5 for c in numbers["peak"])


def test_one_query_is_marked_and_a_label_chosen(make_bundle, photos, tmp_path):
    out = tmp_path / "out"
    explain(
        make_bundle("cnl").bundle.path, (f"{photos}/*/*.png",), out=out, at="0.9,0.1", label="c"
    )
    views = json.loads((out / "explain.json").read_text())["images"][1]["views"]
    assert all(v["mark"][0] > 0.4 > v["mark"][1] for v in views if v["kind"] == "attention")
    assert [v["label"] for v in views if v["kind"] == "cam"] == ["c"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--at", "0.5,1.2"], 2, "--at 0.5,1.2"),
        (["--at", "middle"], 2, "X,Y in 0..1"),
        (["--label", "dd"], 2, "did you mean 'd'?"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    make_bundle, photos, tmp_path, capsys, options, code, words
):
    assert (
        main(
            [
                "explain",
                str(make_bundle("cnl").bundle.path),
                str(photos),
                "--out",
                str(tmp_path / "out"),
                *options,
            ]
        )
        == code
    )
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "uri", ["nothing.jpg", "nothing", "empty", "clip.mp4", "empty/*.jpg", "/dev/video0"]
)
def test_without_images_it_is_a_data_error(make_bundle, tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["explain", str(make_bundle("plain").bundle.path), uri, "--out", "out"]) == 4
    assert not (tmp_path / "out").exists()


def test_what_is_no_bundle_is_a_data_error(photos, tmp_path):
    assert main(["explain", str(photos), str(photos), "--out", str(tmp_path / "out")]) == 4


def test_an_option_that_no_view_would_show_is_refused(make_bundle, photos, tmp_path, capsys):
    assert (
        main(
            [
                "explain",
                str(make_bundle("plain").bundle.path),
                str(photos),
                "--out",
                str(tmp_path / "out"),
                "--at",
                "0.5,0.5",
            ]
        )
        == 2
    )
    assert "no 'attention' view" in capsys.readouterr().err


def test_the_python_way_needs_no_files(make_bundle, frame):
    explained = Explainer(make_bundle("cnl").bundle)(frame, ExplainOptions(contrast=True))
    assert explained.pixels.shape == (64, 64, 3)
    assert len(explained.panels) == 6
