"""Renamed options work under their old name, with a warning."""

from __future__ import annotations

import logging

import pytest

from finedge import arguments
from finedge.arguments import RENAMED, call, renamed
from finedge.commands import COMMANDS
from finedge.errors import SystemProblem


@pytest.fixture
def names(monkeypatch):
    table = {"classify": {"--old": "--new-name"}}
    monkeypatch.setattr(arguments, "RENAMED", table)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--old", "--new-name"),
        ("--old=3", "--new-name=3"),
        ("--old=a=b", "--new-name=a=b"),
        ("--no-old", "--no-new-name"),
    ],
)
def test_an_old_name_becomes_the_new_one_with_a_warning(names, caplog, word, expected):
    with caplog.at_level(logging.WARNING, "finedge"):
        assert renamed(["x", word, "y"], command="classify") == ["x", expected, "y"]
    (text,) = caplog.messages
    assert word.partition("=")[0] in text
    assert expected.partition("=")[0] in text


@pytest.mark.parametrize("word", ["--older", "old", "--new-name", "--no-older", "-old", "--"])
def test_other_words_stay_as_they_are(names, caplog, word):
    assert renamed([word], command="classify") == [word]
    assert caplog.messages == []


def test_an_option_of_another_command_stays(names):
    assert renamed(["--old"], command="verify") == ["--old"]


def test_both_forms_of_a_value_and_of_a_flag_reach_the_function(names):
    def function(*, new_name: int = 0, flag: bool = True) -> tuple[int, bool]:
        return new_name, flag

    for words in (["--old", "4"], ["--old=4"]):
        assert call(function, prog="finedge classify", arguments=words) == (4, True)


def test_a_flag_is_switched_off_by_its_old_name(monkeypatch):
    def function(*, fresh: bool = True) -> bool:
        return fresh

    monkeypatch.setattr(arguments, "RENAMED", {"train": {"--stale": "--fresh"}})
    assert call(function, prog="finedge train", arguments=["--no-stale"]) is False


def test_an_underscore_is_a_hyphen_as_for_every_option(monkeypatch, caplog):
    monkeypatch.setattr(arguments, "RENAMED", {"calibrate": {"--give-up": "--new"}})
    assert renamed(["--give_up=1"], command="calibrate") == ["--new=1"]


@pytest.mark.parametrize("command", RENAMED)
def test_the_new_names_exist_and_the_old_ones_do_not(command, capsys):
    try:
        function = COMMANDS[command].load()
    except SystemProblem as missing:
        pytest.skip(str(missing))
    with pytest.raises(SystemExit):
        call(function, prog=f"finedge {command}", arguments=["--help"])
    words = capsys.readouterr().out.split()
    for old, new in RENAMED[command].items():
        assert new in words
        assert old not in words
