"""Text of others, on its way to a terminal, a log, a datagram or a file's name."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finedge.cli import main
from finedge.errors import DataError
from finedge.sanitize import CleanFormatter, file_name, printable, printable_lines

HOSTILE = "a\x1b[2J\x9b31m\r\x00\x08\u202eb\u2066\u2028\ud800\u200b\ufeff"
LABELS = st.text(st.characters(codec=None), max_size=400) | st.text(
    "aA%~._/ \\\u0301e\u00e9", max_size=12
)


def test_what_cannot_be_seen_is_shown_and_what_can_stays() -> None:
    assert printable(HOSTILE).isprintable()
    assert printable("a\nb\t\x1b") == "a\\nb\\t\\x1b"
    for text in ("Würger, 鳥 и птица", "می\u200cخواهم", "\U0001f468\u200d\U0001f4bb", "C:\\x"):
        assert printable(text) == text


def test_a_line_of_others_never_passes_for_one_of_ours() -> None:
    assert (
        printable_lines("two:\n  a\nERROR forged\r\nfinedge: x")
        == "two:\n  a\n  ERROR forged\\r\n  finedge: x"
    )


def test_a_record_and_its_exception_are_cleaned() -> None:
    try:
        raise ValueError(f"rtsp://bob:S3CRET@cam/x{HOSTILE}")
    except ValueError as error:
        told = logging.LogRecord(
            "finedge",
            logging.ERROR,
            "",
            0,
            "%s is lost\nINFO forged",
            (HOSTILE,),
            (ValueError, error, error.__traceback__),
        )
    text = CleanFormatter("%(levelname)s %(message)s").format(told)
    assert "S3CRET" not in text
    assert all(line.isprintable() for line in text.split("\n"))
    assert not any(line.startswith("INFO") for line in text.split("\n"))


def test_an_error_is_clean_wherever_it_is_told() -> None:
    error = DataError(f"no file {HOSTILE}", expected=HOSTILE, fix=HOSTILE)
    assert all(line.isprintable() for line in str(error).split("\n"))
    assert str(DataError(error.what, expected=error.expected, fix=error.fix)) == str(error)


def test_the_command_says_hostile_names_in_plain_letters(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "a\x1b[2J\n\u202eERROR.jpg"
    assert main(["classify", "examples/birds.finedge", str(tmp_path / name)]) == 4
    out, err = capfd.readouterr()
    assert not set(out + err) & set("\x1b\u202e")
    assert "a\\x1b[2J" in err


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("red", "red"),
        ("Great Tit, male (1)", "Great Tit, male (1)"),
        ("鳥", "鳥"),
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        ("", "%"),
        ("con", "%63on"),
        ("Nul.txt", "%4Eul.txt"),
        ("a ", "a%20"),
        ("a:b", "a%3Ab"),
        ("@eaDir", "%40eaDir"),
        ("50%", "50%25"),
    ],
)
def test_a_label_is_a_file_name(label: str, name: str) -> None:
    assert file_name(label) == name


@pytest.mark.parametrize("examples", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_names_are_portable_and_no_two_labels_share_one(examples: int) -> None:
    seen: dict[str, str] = {}

    @settings(max_examples=examples, deadline=None, database=None)
    @given(LABELS)
    def check(label: str) -> None:
        name = file_name(label)
        assert 0 < len(name.encode()) <= 255 - len("20260102T030404.000Z-000100-999.jpg")
        assert printable(name) == name
        assert not set(name) & set('<>:"/\\|?*')
        assert name[0] not in ". " or name == ""
        assert name[-1] not in ". "
        assert seen.setdefault(name, label) == label

    check()


def test_a_json_line_is_faithful(tmp_path: Path) -> None:
    assert json.loads(json.dumps({"label": HOSTILE}))["label"] == HOSTILE
