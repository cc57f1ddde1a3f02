"""The sections on early exits, and what the page does not claim about such rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from finedge.runtime.report.html import page
from finedge.runtime.report.markdown import markdown
from finedge.runtime.report.tables import row_tables
from finedge.runtime.report.verdict import verdicts

CHANGE = {"top1_change": -0.002, "top1_change95": [-0.007, 0.003], "mcnemar_p": 0.54}
EARLY = {
    "timed_frames": {"local_1": 0.45, "end": 0.55},
    "whole_mean_ms": 32.0,
    "share": 0.476,
    "exits": [
        {"output": "local_1", "threshold": 0.878, "n": 1183, "share": 0.476, "top1": 0.963},
        {"output": "end", "threshold": None, "n": 1302, "share": 0.524, "top1": 0.659},
    ],
    "ece": 0.031,
    "against_whole": CHANGE,
}
FITTED = {
    "macs": {"local_1": 0.633},
    "variants": {
        "int8": [
            {
                "output": "local_1",
                "threshold": None,
                "n": 296,
                "share": 0.0,
                "lost": 0,
                "gained": 0,
                "lost_upper95": 0.0101,
                "top1": None,
            }
        ]
    },
}


@pytest.fixture
def content(sample: SimpleNamespace) -> dict[str, Any]:
    """The sample report with a row of `cnl` with early exits, compared with `plain`."""
    report: dict[str, Any] = sample.report()
    row = sample.row("cnl", "int8", p50=20.0, right=2000, change=-9)
    report["rows"].append({**row, "mean_ms": 25.0, "early_exit": EARLY})
    times = {"p50_ms": [30.0, 1.0], "mean_ms": [30.0, 25.0]}
    compared = {"first": "plain", "second": "cnl", "variant": "int8", "early_exit": True}
    report["comparisons"].append({**compared, **times, **CHANGE})
    return {**report, "exits": {"cnl": FITTED}}


@pytest.mark.parametrize("render", [page, markdown])
def test_the_section_has_shares_accuracy_threshold_and_mean(
    render: Any, content: dict[str, Any]
) -> None:
    text = render(content)
    assert "Early exits: cnl int8, single-stream" in text
    assert "The mean time is 25.00 ms, and 32.00 ms without early exits: 1.28x faster." in text
    assert "47.6 % of the images leave early. The top-1 is 0.2 points lower" in text
    cells = ["0.878", "47.6", "96.3", "45.0"]
    assert all(cell in text.partition("Early exits: cnl")[2] for cell in cells)


def test_the_mean_time_stands_beside_the_median(content: dict[str, Any]) -> None:
    columns = row_tables(content["rows"])[0].columns
    assert columns[:4] == ("bundle", "variant", "p50 ms", "mean ms")


@pytest.mark.parametrize("render", [page, markdown])
def test_fitted_exits_are_shown_and_a_closed_one_never_leaves(
    render: Any, content: dict[str, Any]
) -> None:
    text = render(content).partition("How the exits were fitted: cnl")[2]
    assert "296 held-out images" in text
    assert all(cell in text for cell in ("63.3", "never", "1.0"))


def test_no_claim_rests_on_the_median_of_a_row_with_early_exits(content: dict[str, Any]) -> None:
    texts = [sentence.text for sentence in verdicts(content)]
    assert texts[-1].startswith("cnl with early exits is not shown to be more accurate than plain")
    assert texts[-1].endswith("and it is 1.20x faster in the mean.")
    assert not any("20.00 ms" in text or "at p50" in text for text in texts[-1:])
    drawn = page(content)
    assert "Rows with early exits are not in the plot" in drawn
    assert "cnl int8: 80.5 % top-1" not in drawn


def test_a_report_without_early_exits_has_no_word_of_them(sample: SimpleNamespace) -> None:
    assert "early exit" not in page(sample.report()).lower()
    assert "mean ms" not in markdown(sample.report())
