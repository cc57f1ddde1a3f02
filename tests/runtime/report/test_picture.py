"""The picture: labels that can be read, axes that mean what they say."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest

from finedge.runtime.report.html import SIZES, page
from finedge.runtime.report.labels import Box
from finedge.runtime.report.picture import nice_step, picture


def clash(first: Box, second: Box) -> bool:
    return first.overlap(second) > 0


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("spread", [1.0, 0.2, 0.02], ids=["apart", "near", "on top of each other"])
def test_labels_never_overlap_and_stay_inside(
    size: tuple[int, int], spread: float, sample: SimpleNamespace
) -> None:
    rows = [
        sample.row(
            name,
            variant,
            p50=40 * (1 + spread * (i + 3 * j)),
            right=2000 + int(40 * spread * (i - j)),
        )
        for i, name in enumerate(("plain", "cnl", "bcnn"))
        for j, variant in enumerate(("fp32", "int8"))
    ]
    drawn = picture(rows, width=size[0], height=size[1])
    assert drawn is not None
    assert len(drawn.marks) == 6
    assert not [
        pair for pair in itertools.combinations([m.label for m in drawn.marks], 2) if clash(*pair)
    ]
    frame = Box(0, 0, *size)
    assert all(
        clash(m.label, frame) and m.label.overlap(frame) == pytest.approx(m.label.overlap(m.label))
        for m in drawn.marks
    )


def test_left_is_faster_and_up_is_better(sample: SimpleNamespace) -> None:
    rows = [
        sample.row("a", "fp32", p50=20, right=2000),
        sample.row("b", "fp32", p50=10, right=2100),
    ]
    drawn = picture(rows, width=400, height=300)
    assert drawn is not None
    worse, better = drawn.marks
    assert better.x < worse.x
    assert better.y < worse.y
    assert better.high < better.y < better.low


@pytest.mark.parametrize(("slowest", "log"), [(100, False), (2000, True)])
def test_the_axis_is_logarithmic_only_for_wide_ranges(
    slowest: float, log: bool, sample: SimpleNamespace
) -> None:
    drawn = picture(
        [
            sample.row("a", "fp32", p50=slowest, right=2000),
            sample.row("b", "fp32", p50=20, right=2000),
        ],
        width=700,
        height=400,
    )
    assert drawn is not None
    assert drawn.log is log
    assert 3 <= len(drawn.x_ticks) <= 12
    assert 3 <= len(drawn.y_ticks) <= 8


def test_there_is_no_picture_without_an_accuracy(sample: SimpleNamespace) -> None:
    assert picture([sample.row("a", "fp32", p50=20, right=None)], width=400, height=300) is None


@pytest.mark.parametrize(
    ("span", "ticks", "step"), [(10, 5, 2), (117, 6, 20), (0.9, 6, 0.2), (1, 10, 0.1)]
)
def test_steps_are_1_2_or_5(span: float, ticks: int, step: float) -> None:
    assert nice_step(span, ticks) == pytest.approx(step)


def test_both_drawings_are_well_formed_svg(sample: SimpleNamespace) -> None:
    text = page(sample.report())
    drawings = [f"<svg{part.split('</svg>')[0]}</svg>" for part in text.split("<svg")[1:]]
    kinds = [ET.fromstring(d).get("class") for d in drawings]
    scatters = [kind for kind in kinds if str(kind).startswith("scatter")]
    assert scatters == ["scatter wide", "scatter narrow"]
