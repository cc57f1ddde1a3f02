"""Detectors of each known form, as small ONNX graphs whose outputs are constants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from finedge.bundle import Bundle
from finedge.cli import main
from finedge.errors import DataError, UsageError
from finedge.runtime.find.detector.candidates import Size
from finedge.runtime.find.detector.class_names import read_classes
from finedge.runtime.find.detector.detector import open_detector, open_network
from finedge.runtime.find.detector.network_input import InputRule, fit_frame, scaled
from finedge.runtime.find.detector.yolo import STRIDES, STRIDES_P6, cells, grids
from finedge.runtime.find.options import FindOptions, open_finders

SIDE = 64
SIZE = Size(SIDE, SIDE)
FRAME = np.zeros((100, 200, 3), np.uint8)
# A frame of 200 x 100 is 64 x 32 of the input: a thing from (16, 8) to (32, 24) of that.
IN_FRAME = (50, 25, 50, 50)
STRETCHED = (16.0, 16.0, 32.0, 48.0)
CORNER = (16.0, 8.0, 32.0, 24.0)
LETTERBOX = (16.0, 24.0, 32.0, 40.0)
N = cells(SIZE, STRIDES)


def middles(corners: tuple[float, ...]) -> list[float]:
    left, top, right, bottom = corners
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def write(
    path: Path,
    outputs: dict[str, NDArray[np.generic]],
    *,
    shape: tuple[int | str, ...] = (1, 3, SIDE, SIDE),
    dtype: int = TensorProto.FLOAT,
    sizes: bool = False,
    names: str | None = None,
) -> Path:
    """Write a model that answers every picture with the same outputs."""
    inputs = [helper.make_tensor_value_info("images", dtype, shape)]
    if sizes:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, (1, 2)))
    infos, nodes = [], []
    for name, array in outputs.items():
        value = numpy_helper.from_array(array)
        nodes.append(helper.make_node("Constant", [], [name], value=value))
        infos.append(helper.make_tensor_value_info(name, value.data_type, array.shape))
    graph = helper.make_graph(nodes, "detector", inputs, infos)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if names:
        helper.set_model_props(model, {"names": names})
    onnx.save(model, path)
    return path


def rows(count: int, columns: int, **row: list[float]) -> NDArray[np.float32]:
    """Return [1, count, columns] of nothing, with rows at the places that their names end in."""
    table = np.zeros((count, columns), np.float32)
    table[:, 2:4] = 1
    for place, values in row.items():
        table[int(place[1:])] = values
    return table[None]


def raw_yolox() -> NDArray[np.float32]:
    table = np.zeros((N, 7), np.float32)
    grid, stride = grids(SIZE, STRIDES)
    x, y, w, h = middles(CORNER)
    for row in (9, 10):  # two cells answer with the same thing
        table[row, :2] = (x, y) / stride[row] - grid[row]
        table[row, 2:4] = np.log((w, h) / stride[row])
        table[row, 4:] = 0.9, 0.1, 1.0
    return table[None]


def lay(corners: tuple[float, ...], *scores: float) -> list[float]:
    return [*middles(corners), *scores]


LOGITS = np.array([[[-9.0, 3.0], [-9.0, -9.0]]], np.float32)
FRACTIONS = np.array([[np.array(middles(STRETCHED)) / SIDE, [0.5, 0.5, 0.1, 0.1]]], np.float32)
PAIR = np.array([STRETCHED, (0.0, 0.0, 9.0, 9.0)], np.float32)
SCORES, LABELS = np.array([0.9, 0.1], np.float32), np.array([1, 0], np.int64)

FORMS: dict[str, dict[str, NDArray[np.generic]]] = {
    "YOLOX": {"output": raw_yolox()},
    "YOLOX decoded": {
        "output": rows(
            N,
            7,
            r3=lay(CORNER, 0.9, 0.1, 1.0),
            r4=lay(CORNER, 0.8, 0.1, 1.0),
            r5=lay((60, 60, 64, 64), 0.01, 0.1, 1.0),
        )
    },
    "YOLOv5": {"output0": rows(3 * N, 7, r3=lay(LETTERBOX, 0.9, 0.1, 1.0))},
    "MegaDetector": {
        "output": rows(3 * cells(SIZE, STRIDES_P6), 8, r3=lay(LETTERBOX, 0.9, 0.1, 1.0, 0.0))
    },
    "YOLOv8": {
        "output0": rows(N, 6, r3=lay(LETTERBOX, 0.1, 0.9)).transpose(0, 2, 1).copy(),
    },
    "YOLO without NMS": {"output0": rows(30, 6, r3=[*LETTERBOX, 0.9, 1.0])},
    "RT-DETR": {"labels": LABELS[None], "boxes": PAIR[None], "scores": SCORES[None]},
    "transformers": {"logits": LOGITS, "pred_boxes": FRACTIONS},
    "RF-DETR": {"dets": FRACTIONS, "labels": LOGITS},
    "torchvision": {"boxes": PAIR, "labels": LABELS, "scores": SCORES},
    "zoo": {"bboxes": PAIR[None] / SIDE, "labels": LABELS[None], "scores": SCORES[None]},
    "TensorFlow": {
        "detection_boxes": PAIR[None][:, :, [1, 0, 3, 2]] / SIDE,
        "detection_classes": LABELS[None].astype(np.float32),
        "detection_scores": SCORES[None],
        "num_detections": np.array([2.0], np.float32),
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_its_box_in_the_frame(form: str, tmp_path: Path) -> None:
    names = "{0: 'person', 1: 'bird'}"
    options = {"shape": (1, SIDE, SIDE, 3), "dtype": TensorProto.UINT8}
    kwargs = options if form == "TensorFlow" else {"sizes": form == "RT-DETR"}
    path = write(tmp_path / "m.onnx", FORMS[form], names=names, **kwargs)  # type: ignore[arg-type]
    network, metadata = open_network(path, threads=1)
    detector = open_detector(network, read_classes(metadata), threshold=0.4)
    (box,) = detector(FRAME, seconds=0.0)
    assert box.kind == "bird"
    assert box.p == pytest.approx(0.95 if form in ("transformers", "RF-DETR") else 0.9, abs=0.01)
    assert (box.x, box.y, box.w, box.h) == pytest.approx(IN_FRAME, abs=2)


@pytest.mark.parametrize(
    ("kept", "count"), [("bird", 1), ("1", 1), ("person", 0), ("person, bird", 1)]
)
def test_only_the_classes_that_were_asked_for_count(kept: str, count: int, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", FORMS["YOLOv8"], names="['person', 'bird']")
    (finder,) = open_finders(FindOptions(str(path), find_classes=kept), cameras=1)
    assert len(finder(FRAME, seconds=0.0)) == count


def test_class_names_come_from_a_file_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n\r\n")
    for file in ("names.txt", "windows.txt"):
        classes = read_classes({}, file=tmp_path / file, kept="dog,7")
        assert (classes.name(0), classes.name(9)) == ("cat", "9")
        assert classes.kept == frozenset({1, 7})
    with pytest.raises(UsageError, match="unknown class 'dug'"):
        read_classes({"names": "{0: 'dog'}"}, kept="dug")
    assert read_classes({"names": "__import__('os')"}).names == {}
    with pytest.raises(UsageError, match="--find-classes ','"):
        read_classes({}, kept=",")
    with pytest.raises(DataError, match=r"no\.txt"):
        read_classes({}, file=tmp_path / "no.txt")
    (tmp_path / "latin.txt").write_bytes("bj\xf6rk".encode("latin1"))
    with pytest.raises(DataError, match=r"latin\.txt"):
        read_classes({}, file=tmp_path / "latin.txt")


@pytest.mark.parametrize("lines", ["bird", "person\nbird\ncat"])
def test_class_names_that_do_not_fit_the_model_are_refused(lines: str, tmp_path: Path) -> None:
    path = str(write(tmp_path / "m.onnx", FORMS["YOLOv8"]))
    (tmp_path / "names.txt").write_text(lines)
    with pytest.raises(DataError, match=r"names; .* has 2 classes"):
        open_finders(FindOptions(path, find_names=tmp_path / "names.txt"), cameras=1)
    with pytest.raises(UsageError, match="no class 2"):
        open_finders(FindOptions(path, find_classes="0,2"), cameras=1)


def test_unknown_outputs_are_named_with_the_known_forms(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", {"heatmap": np.zeros((1, 3, 9, 9), np.float32)})
    with pytest.raises(DataError) as error:
        open_finders(FindOptions(str(path)), cameras=1)
    text = str(error.value)
    assert "heatmap float32 [1, 3, 9, 9]" in text
    assert all(name in text for name in ("YOLOX", "MegaDetector", "RF-DETR", "D-FINE", "SSD"))


def test_a_file_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--find birds"):
        open_finders(FindOptions("birds"), cameras=1)
    with pytest.raises(DataError, match=r"no.onnx"):
        open_finders(FindOptions(str(tmp_path / "no.onnx")), cameras=1)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(DataError, match=r"bad.onnx"):
        open_finders(FindOptions(str(tmp_path / "bad.onnx")), cameras=1)
    path = write(tmp_path / "m.onnx", FORMS["YOLOv8"], shape=(1, 9))
    with pytest.raises(DataError, match=r"images tensor\(float\) \[1, 9\]"):
        open_finders(FindOptions(str(path)), cameras=1)


@pytest.mark.parametrize("find", ["motion", "none"])
def test_classes_are_those_of_a_detector(find: str) -> None:
    with pytest.raises(UsageError, match="without a detector"):
        FindOptions(find, find_classes="bird")


BOXES = np.zeros((5, 4), np.float32)
MISFITS: dict[str, dict[str, NDArray[np.generic]]] = {
    "counts": {"boxes": BOXES, "labels": LABELS, "scores": SCORES},
    "corners": {"boxes": BOXES[:, :3], "labels": LABELS, "scores": SCORES},
    "no batch": {
        "detection_boxes": BOXES,
        "detection_classes": np.zeros(5, np.float32),
        "detection_scores": np.ones(5, np.float32),
    },
    "queries": {"logits": LOGITS, "pred_boxes": BOXES[None]},
    "no classes": {"logits": LOGITS[:, :, :0], "pred_boxes": FRACTIONS},
    "no pictures": {"labels": LABELS[None, :0], "boxes": PAIR[None], "scores": SCORES[None]},
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_outputs_that_do_not_fit_together_are_named(misfit: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MISFITS[misfit])
    with pytest.raises(DataError, match=r"m.onnx: the outputs do not fit together: \w+ \w+ \["):
        open_finders(FindOptions(str(path)), cameras=1)


@pytest.mark.parametrize("shape", [(4, 3, SIDE, SIDE), (1, 3, 100_000, 100_000)])
def test_a_batch_or_a_huge_picture_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.onnx takes"):
        open_network(write(tmp_path / "m.onnx", FORMS["torchvision"], shape=shape))


NAN, INF, FAR = np.nan, np.inf, 3e38
NO_BOXES = {
    "NaN": [NAN, 8, 20, 40, 0.9, 0],
    "infinite": [8, 8, INF, 40, 0.9, 0],
    "empty": [30, 30, 30, 40, 0.9, 0],
    "turned": [40, 40, 30, 30, 0.9, 0],
    "outside": [500, 500, 600, 600, 0.9, 0],
    "before": [-50, -50, -10, -10, 0.9, 0],
    "far": [1e30, 1e30, FAR, FAR, 0.9, 0],
    "no score": [10, 20, 30, 40, NAN, 0],
    "endless score": [10, 20, 30, 40, INF, 0],
    "no class": [10, 20, 30, 40, 0.9, NAN],
    "class -1": [10, 20, 30, 40, 0.9, -1],
    "class of no model": [10, 20, 30, 40, 0.9, 1e20],
}


@pytest.mark.filterwarnings("error")
def test_a_box_that_is_none_is_dropped_and_the_others_stay(tmp_path: Path) -> None:
    wrong = {f"r{place}": row for place, row in enumerate(NO_BOXES.values())}
    table = rows(30, 6, **wrong, r20=[*LETTERBOX, 0.9, 1], r21=[-FAR, -FAR, FAR, FAR, 0.8, 1])
    path = write(tmp_path / "m.onnx", {"output0": table})
    (finder,) = open_finders(FindOptions(str(path)), cameras=1)
    whole, thing = finder(FRAME, seconds=0.0)
    assert (thing.x, thing.y, thing.w, thing.h) == pytest.approx(IN_FRAME, abs=2)
    assert (whole.x, whole.y, whole.w, whole.h) == (0, 0, 200, 100)


def test_of_many_thousand_boxes_the_surest_are_kept(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 30, (50_000, 4)).astype(np.float32)
    corners[:, 2:] += corners[:, :2] + 1
    corners[4321], scores = STRETCHED, random.uniform(0.4, 0.8, 50_000).astype(np.float32)
    scores[4321] = 0.9
    many = {"boxes": corners, "labels": np.ones(50_000, np.int64), "scores": scores}
    (finder,) = open_finders(
        FindOptions(str(write(tmp_path / "m.onnx", many)), max_objects=1), cameras=1
    )
    (box,) = finder(FRAME, seconds=0.0)
    assert (box.x, box.y, box.w, box.h) == pytest.approx(IN_FRAME, abs=2)


def test_weights_in_a_file_beside_the_model_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", FORMS["YOLOv8"])
    model = onnx.load(path)
    weights = np.zeros((1, 3, SIDE, SIDE), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    model.graph.node.append(helper.make_node("Add", ["images", "weights"], ["sum"]))
    onnx.save_model(
        model, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0
    )
    (finder,) = open_finders(FindOptions(str(path)), cameras=1)
    assert len(finder(FRAME, seconds=0.0)) == 1
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(DataError, match=r"m\.onnx"):
        open_finders(FindOptions(str(path)), cameras=1)


def test_a_model_of_any_size_gets_640_pixels(tmp_path: Path) -> None:
    network, _ = open_network(
        write(tmp_path / "m.onnx", FORMS["torchvision"], shape=(3, "h", "w")), threads=1
    )
    assert network.size == Size(640, 640)


@pytest.mark.parametrize(("fit", "top"), [("corner", 0), ("letterbox", 16)])
def test_a_frame_keeps_its_ratio_and_comes_back(fit: str, top: int) -> None:
    frame = np.full((100, 200, 3), 7, np.uint8)
    pixels, placement = fit_frame(frame, height=SIDE, width=SIDE, fit=fit)  # type: ignore[arg-type]
    assert (pixels[top : top + 32] == 7).all()
    assert (pixels[-1 if top == 0 else 0] == 114).all()
    corners = np.array([[0.0, top, 64.0, top + 32]])
    assert placement.to_frame(corners).tolist() == [[0, 0, 200, 100]]


def test_pixels_are_scaled_as_each_family_does() -> None:
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 255
    assert scaled(red, InputRule(divisor=1, bgr=True)).ravel().tolist() == [0, 0, 255]
    assert scaled(red, InputRule()).ravel().tolist() == [1, 0, 0]
    raw = scaled(red, InputRule(), dtype=np.uint8)  # the network scales it
    assert (raw.dtype, raw.ravel().tolist()) == (np.uint8, [255, 0, 0])
    centred = scaled(red, InputRule(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    assert centred.ravel().tolist() == pytest.approx([1, -1, -1])


def test_boxes_of_a_detector_are_clipped_and_the_surest_are_kept(tmp_path: Path) -> None:
    table = rows(30, 6, r0=[-9, 8, 20, 40, 0.9, 0], r1=[30, 30, 40, 40, 0.5, 0])
    path = write(tmp_path / "m.onnx", {"output0": table})
    (finder,) = open_finders(FindOptions(str(path), max_objects=1), cameras=1)
    (box,) = finder(FRAME, seconds=0.0)
    assert (box.x, box.y, box.w, box.h, box.kind) == (0, 0, 63, 75, "0")
    assert box.p == pytest.approx(0.9)


def test_the_things_of_a_photo_have_lines_without_a_track(
    tmp_path: Path, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write(tmp_path / "m.onnx", FORMS["YOLOv8"], names="['person', 'bird']")
    photo = FRAME.copy()
    photo[25:75, 50:100] = (210, 30, 40)
    Image.fromarray(photo).save(tmp_path / "a.png")
    words = ["classify", str(tiny_bundle.path), str(tmp_path / "a.png"), "--variant", "fp32"]
    assert main([*words, "--find", str(model), "--find-classes", "bird"]) == 0
    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert (line["track"], line["kind"], line["status"]) == (None, "bird", "ok")
    assert line["top"][0]["label"] == "red"
    assert line["box"] == pytest.approx(IN_FRAME, abs=2)
