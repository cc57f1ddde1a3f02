"""The pages made of a report.json: what they say, in which order, and what they escape."""

from __future__ import annotations

import doctest
import html
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finedge.errors import DataError
from finedge.runtime.report import verdict
from finedge.runtime.report.command import report
from finedge.runtime.report.content import read_report
from finedge.runtime.report.html import page
from finedge.runtime.report.markdown import markdown
from finedge.runtime.report.tables import row_tables
from finedge.runtime.report.verdict import verdicts

SCRIPT = "<script>alert('x')</script>"


def write(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "report.json").write_text(json.dumps(content))
    return folder


def test_command_writes_both_pages_beside_the_json(tmp_path: Path, sample: SimpleNamespace) -> None:
    written = report(write(tmp_path, sample.report()))
    assert written == {
        "markdown": str(tmp_path / "report.md"),
        "html": str(tmp_path / "report.html"),
    }
    assert "93.40" in Path(written["markdown"]).read_text()
    assert "93.40" in Path(written["html"]).read_text()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"schema": 2}', '{"schema": 1, "made": "now"}'])
def test_a_missing_damaged_or_newer_report_is_a_data_error(
    tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError):
        read_report(tmp_path / "report.json")


def test_the_examples_of_the_verdict_are_true() -> None:
    assert doctest.testmod(verdict).failed == 0


def test_verdict_says_faster_lower_and_not_beyond_chance(sample: SimpleNamespace) -> None:
    texts = [s.text for s in verdicts(sample.report())]
    expected = (
        "plain: INT8 is 2.93x faster at p50 and its top-1 is 0.3 points lower "
        "(95 % interval -0.8..+0.2; not beyond chance",
        "cnl is not shown to be more accurate than plain at FP32.",
    )
    assert all(any(text.startswith(start) for text in texts) for start in expected)


def test_verdict_claims_a_better_or_worse_model_only_beyond_chance(sample: SimpleNamespace) -> None:
    content = sample.report()
    content["comparisons"][0] |= {"mcnemar_p": 0.001}
    assert verdicts(content)[-1].lead == "cnl is more accurate than plain at FP32."
    content["comparisons"][0] |= {"top1_change": -0.05}
    assert verdicts(content)[-1].lead == "cnl is less accurate than plain at FP32."


@pytest.mark.parametrize(
    ("age", "alone", "words"),
    [
        (37.0, 12.4, "answers 95 % of the frames within 37.0 ms of their capture, and without it"),
        (None, 12.4, "uses 21.0 % of one core on scene; finding takes 1.5 ms"),
        (37.0, None, "uses 21.0 % of one core on scene; finding takes 1.5 ms"),
    ],
)
def test_verdict_says_the_age_of_frames_only_where_it_was_measured(
    age: float | None, alone: float | None, words: str
) -> None:
    whole = {"source": "scene", "find": None, "age_p95_ms": alone, "core_share": 0.1}
    found = {"source": "scene", "find": "motion", "age_p95_ms": age, "core_share": 0.21}
    rows = [
        {"bundle": "birds", "variant": "int8", "mode": "camera", "valid": True, "camera": camera}
        for camera in (whole, found | {"find_p50_ms": 1.5})
    ]
    sentence = verdict._finding(rows[1], rows)
    assert words in sentence.text
    assert "n/a" not in sentence.text


def test_verdict_warns_of_invalid_rows_first(sample: SimpleNamespace) -> None:
    first = verdicts(sample.report())[0]
    assert first.warning
    assert first.text.startswith("1 of 8 rows is INVALID")


def test_verdict_of_one_variant_without_labels_gives_its_time(sample: SimpleNamespace) -> None:
    content = sample.report()
    content |= {
        "rows": [sample.row("solo", "fp32", p50=12.3, right=None)],
        "comparisons": [],
        "per_class": {},
    }
    assert [s.text for s in verdicts(content)] == [
        "solo: FP32 takes 12.30 ms at p50; its accuracy was not measured."
    ]
    assert "not measured: no labelled data" in page(content)


@pytest.mark.parametrize("render", [markdown, page])
def test_invalid_rows_are_shown_with_their_reason(render: Any, sample: SimpleNamespace) -> None:
    text = html.unescape(render(sample.report()))
    assert "39.20" in text
    assert "p99 was asked for: needs 662 queries, has 240" in text


def test_the_point_of_an_invalid_row_is_hollow_and_its_bar_says_why(
    sample: SimpleNamespace,
) -> None:
    text = page(sample.report())
    assert 'class="mark c1 invalid"' in text
    assert "cnl int8 (INVALID)" in text
    assert "2.10 + 29.70 + 0.10" in text


@pytest.mark.parametrize("render", [markdown, page])
def test_every_column_is_explained_once(render: Any, sample: SimpleNamespace) -> None:
    report = sample.report()
    columns = {title for table in row_tables(report["rows"]) for title in table.columns}
    text = html.unescape(render(report)).split("What the columns mean")[1]
    for title in columns:
        assert sum(text.count(f"{a}{title}{b}") for a, b in (("**", "**"), ("<dt>", "</dt>"))) == 1


@pytest.mark.parametrize("render", [markdown, page])
def test_an_unsupported_percentile_is_not_a_number(render: Any, sample: SimpleNamespace) -> None:
    assert "n/a (n<662)" in html.unescape(render(sample.report()))


@pytest.mark.parametrize("render", [markdown, page])
def test_text_from_users_is_escaped(render: Any, sample: SimpleNamespace) -> None:
    text = render(sample.report(first=f"a{SCRIPT}", label=f"b{SCRIPT}|c"))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize("render", [markdown, page])
def test_control_characters_of_users_reach_no_page(render: Any, sample: SimpleNamespace) -> None:
    text = render(sample.report(label="red\x1b[2J\u202e\ud800", first="a\n# A heading"))
    assert "red\\x1b" in text.replace("\\\\", "\\")
    assert not set(text) & set("\x1b\u202e\ud800")
    assert "\n# A heading" not in text


def test_a_pipe_in_a_label_keeps_the_markdown_table_whole(sample: SimpleNamespace) -> None:
    (line,) = [x for x in markdown(sample.report(label="a|b")).splitlines() if "a\\|b" in x]
    assert line.replace("\\|", "").count("|") == 8


def test_the_page_needs_nothing_from_outside(sample: SimpleNamespace) -> None:
    text = page(sample.report())
    assert "<script" not in text
    assert not [a for a in ("src=", "@import", "url(", 'href="http') if a in text]


def test_single_stream_and_offline_stand_in_different_tables(sample: SimpleNamespace) -> None:
    text = page(sample.report())
    assert text.count('<table class="results">') == 2
    assert "batch 8" in text


def test_power_has_columns_and_a_sentence_only_with_a_sensor(
    sample: SimpleNamespace,
) -> None:
    report = sample.report()
    assert "mJ an image" not in markdown(report)
    for row in report["rows"]:
        row |= {
            "power": {"mean_w": 7.25, "sensor": "the rail VIN", "readings": 15},
            "energy_mj": 231.5,
            "power_mode": "25W",
        }
    report["rows"][0] |= {
        "power": {"mean_w": None, "sensor": None, "readings": 3},
        "energy_mj": None,
    }
    for text in (markdown(report), page(report)):
        assert all(
            word in text
            for word in ("mJ an image", "231.50", "7.25", "25W", "reported by the rail VIN. Energy")
        )


def test_classes_are_listed_worst_first(sample: SimpleNamespace) -> None:
    text = markdown(sample.report(label="the-worst"))
    assert text.index("the-worst") < text.index("class-1 ") < text.index("class-2 ")


def test_the_calibration_error_and_its_plots_are_shown(sample: SimpleNamespace) -> None:
    report = sample.report()
    text = page(report)
    assert text.count('class="reliability"') == 2
    assert "calibration error 0.094 -&gt; 0.021 by temperature" in text
    assert "400 answers with mean probability 0.83: 80 % right" in text
    assert "| plain int8 | 0.094 | 0.094 |" in markdown(report)


def test_a_report_without_reliability_has_no_plots(sample: SimpleNamespace) -> None:
    report = {k: v for k, v in sample.report().items() if k != "reliability"}
    assert 'class="reliability"' not in page(report)
