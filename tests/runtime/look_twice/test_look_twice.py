"""The second look: where it lies, what it answers, and what is refused."""

import json

import numpy as np
import pytest

from finedge.bundle import Bundle, View
from finedge.cli import main
from finedge.errors import BundleError, UsageError
from finedge.preprocess import preprocess
from finedge.runtime.backend import SessionOptions
from finedge.runtime.classifier import Classifier
from finedge.runtime.fake import FakeBackend
from finedge.runtime.look_twice.open import chosen_view, open_second_look
from finedge.runtime.look_twice.options import LookOptions
from finedge.runtime.look_twice.window import whole, window
from finedge.runtime.ort.backend import OnnxRuntimeBackend
from finedge.spec import Preprocess
from tests.runtime.conftest import COLOURS, SPEC, TAP

EVIDENCE = View("evidence", "cam", TAP.name)
TWICE = LookOptions(look_twice=True, look_crop=0.5)
SQUARE = Preprocess(resize=32, crop=32)


@pytest.fixture
def looking(tiny_bundle, tiny_files):
    """The tiny bundle with a view of its last map."""
    return Bundle.create(
        tiny_bundle.path.with_name("looking.finedge"),
        SPEC,
        files={name: tiny_bundle.file(name) for name in tiny_bundle.files if name != "golden.npz"},
        taps=(TAP,),
        views=(EVIDENCE,),
        provenance={},
    )


@pytest.mark.parametrize(
    ("peak", "rows", "columns"),
    [
        ((16.0, 16.0), (80, 240), (160, 320)),  # the middle of the crop is that of the frame
        ((8.0, 24.0), (160, 320), (80, 240)),
        ((0.5, 0.5), (0, 160), (5, 165)),  # it leaves the crop to the left, and not the frame
        ((31.5, 31.5), (160, 320), (315, 475)),
    ],
)
def test_the_window_is_centred_at_the_peak_and_inside_the_frame(peak, rows, columns):
    part = window((320, 480), SQUARE, peak=peak, share=0.5)
    assert part == (slice(*rows), slice(*columns))


def test_a_resize_larger_than_the_crop_makes_a_smaller_window():
    rows, columns = window((360, 360), SPEC.preprocess, peak=(16, 16), share=1.0)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (320, 320)


def test_the_whole_window_becomes_the_input():
    frame = np.zeros((90, 70, 3), np.uint8)
    frame[0, :] = frame[-1, :] = frame[:, 0] = frame[:, -1] = 255
    pixels = preprocess(frame, whole(Preprocess(resize=36, crop=32)))
    assert pixels.shape == (32, 32, 3)
    assert all(edge.mean() > 60 for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_the_second_look_sees_what_the_peak_shows(looking, variant):
    """A grey frame with a red corner: the evidence for the first answer places the window."""
    frame = np.full((320, 320, 3), COLOURS["grey"], np.uint8)
    frame[:100, 220:] = COLOURS["red"]
    backend = OnnxRuntimeBackend(SessionOptions(threads=1))
    session, look = open_second_look(backend, looking, variant=variant, options=TWICE)
    batch = preprocess(frame, SPEC.preprocess)[None]
    outputs = session(batch)
    ((x, y),) = look.peaks(outputs)
    part = window((320, 320), SPEC.preprocess, peak=(x, y), share=0.5)
    expected = preprocess(np.ascontiguousarray(frame[part]), whole(SPEC.preprocess))
    assert np.array_equal(look.crops(outputs, [frame])[0], expected)


def test_the_answer_is_the_mean_of_both_looks(looking, frames):
    with (
        Classifier.open(looking, variant="fp32", backend="onnxruntime") as once,
        Classifier.open(looking, variant="fp32", backend="onnxruntime", look=TWICE) as twice,
    ):
        batch = twice.prepare(frames)
        first = twice.session(batch)
        second = once.scores(twice.second_look.crops(first, frames))
        expected = (once.scores(batch) + second) / 2
        assert twice.scores(batch, frames=frames) == pytest.approx(expected, abs=1e-5)
        assert [p.top[0].label for p in twice(frames)] == list(COLOURS)
        with pytest.raises(UsageError, match="0 frames for 6 answers"):
            twice.scores(batch)


def test_a_bundle_without_a_map_says_how_to_export_one(tiny_bundle):
    with pytest.raises(BundleError, match="finedge export RUN --out BUNDLE") as error:
        Classifier.open(tiny_bundle, variant="fp32", look=TWICE)
    assert "no map" in error.value.what


def test_a_map_of_another_kind_is_refused_by_its_name(looking):
    assert chosen_view(looking, "auto") == chosen_view(looking, "cam") == EVIDENCE
    with pytest.raises(BundleError, match="attention or mask"):
        chosen_view(looking, "attention")


def test_other_backends_and_early_exits_are_refused(looking):
    with pytest.raises(UsageError, match="--backend onnxruntime"):
        open_second_look(FakeBackend(), looking, variant="fp32", options=TWICE)
    with pytest.raises(UsageError, match="--early-exit"):
        Classifier.open(looking, variant="fp32", early_exit=True, look=TWICE)


@pytest.mark.parametrize("share", [0.0, 1.1, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused(share):
    with pytest.raises(UsageError, match="--look-crop"):
        LookOptions(look_twice=True, look_crop=share)


@pytest.mark.parametrize("placed", [{"look_crop": 0.5}, {"look_view": "cam"}])
def test_a_place_without_a_second_look_is_refused(placed):
    with pytest.raises(UsageError, match="without --look-twice"):
        LookOptions(**placed)


def test_the_commands_look_twice(looking, tiny_data, capsys):
    options = ["--variant", "int8", "--backend", "onnxruntime", "--look-twice", "--json"]
    assert main(["evaluate", str(looking.path), "--data", str(tiny_data), *options]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["top1"] == 1.0
    assert record["look_twice"] == {"crop": LookOptions().look_crop, "view": "cam"}
    photos = str(tiny_data / "test" / "red")
    assert main(["classify", str(looking.path), photos, *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["top"][0]["label"] for line in lines] == ["red"] * 3


def test_the_benchmark_measures_both_looks(looking, tiny_data, tmp_path, capsys):
    options = ["--data", str(tiny_data), "--backend", "onnxruntime", "--duration", "300ms"]
    options += ["--mode", "single-stream,camera", "--threads", "1", "--out", str(tmp_path)]
    main(["benchmark", str(looking.path), *options, "--look-twice", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {(row["looks"], row["top1"], row["int8_peak"]) for row in rows} == {(2, 1.0, None)}
    assert {row["mode"] for row in rows} == {"single-stream", "camera"}
    pytest.importorskip("jinja2")
    assert main(["report", str(tmp_path)]) == 0
    assert "two looks a frame" in (tmp_path / "report.md").read_text()
    assert "looked at twice" in (tmp_path / "report.html").read_text()
