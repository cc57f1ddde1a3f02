"""What the documents name exists: files, links, commands and their options, make targets."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from finedge.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "finedge/README.md"]
DOCUMENTS += ["jetson/README.md", "jetson/plugin/README.md"]
DOCUMENTS += sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "docs").rglob("*.md")
    if not path.is_symlink()  # its target is in the list
)
SCRIPTS = [
    "examples/demo.sh",
    "examples/try.sh",
    "examples/make_bundle.sh",
    "benchmarks/cpu/resnet50_cnl.sh",
    "benchmarks/cpu/plain_against_cnl.sh",
]
RECIPES = sorted((ROOT / "train/recipes").glob("*.toml"))
# Options of other programs that the documents name.
FOREIGN = {"--system-site-packages", "--only-binary", "--onnx", "--dry-run", "--service"}
COMMAND_LINE = re.compile(r"^(?:.*(?:\|\| |\{ |&& ))?\s*finedge ([a-z][^\n#]*)", re.M)
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]*)")


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, options) of each `finedge ...` line of a page or a script."""
    for line in COMMAND_LINE.findall(re.sub(r"\\\n", " ", text)):
        words = line.split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        yield name, OPTION.findall(line)


@functools.cache
def options(command: str) -> frozenset[str]:
    """Return the options in the help of a command; none where its packages are missing."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        main([*command.split(), "--help"])
    return frozenset(OPTION.findall(page.getvalue())) | {"--help", "--json"}


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_every_relative_link_resolves(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / document).read_text())
    folder = (ROOT / document).parent
    broken = [link for link in links if "://" not in link and not (folder / link).exists()]
    assert not broken


@pytest.mark.parametrize("document", [*DOCUMENTS, *SCRIPTS])
def test_every_command_and_option_that_is_shown_exists(document: str) -> None:
    shown = list(commands((ROOT / document).read_text()))
    unknown = sorted({name for name, _ in shown} - set(COMMANDS))
    assert not unknown
    for name, used in shown:
        if not set(used) <= options(name):
            assert len(options(name)) > 2, f"no help of {name}: its packages are missing"
            assert not set(used) - options(name), name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_in_prose_is_one_of_some_command(document: str) -> None:
    pytest.importorskip("torch")
    prose = re.sub(r"^```.*?^```", "", (ROOT / document).read_text(), flags=re.M | re.S)
    named = {o for code in re.findall(r"`([^`]+)`", prose) for o in OPTION.findall(code)}
    every = set().union(*map(options, COMMANDS))
    assert named <= every | FOREIGN


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_in_prose_exists(document: str) -> None:
    rooms = "|".join(("benchmarks", "calib", "docs", "examples", "export", "finedge", "jetson"))
    pattern = rf"`((?:{rooms}|runtime|tests|train)/[\w./-]+)[^`]*`"
    named = re.findall(pattern, (ROOT / document).read_text())
    missing = [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert not missing


def test_the_make_targets_that_are_shown_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    shown = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"(?:^|`)make ([a-z0-9-]+)", (ROOT / document).read_text(), re.M)
    }
    assert {"demo", "test", "try", "docs"} <= shown
    assert shown <= targets


def test_every_command_has_a_row_and_a_page() -> None:
    text = (ROOT / "docs/commands.md").read_text()
    assert not [name for name in COMMANDS if f"`{name}`" not in text]


def test_the_exit_codes_are_those_of_the_error_tree() -> None:
    import finedge.errors

    tree = {int(code) for code in re.findall(r"  (\d)  ", finedge.errors.__doc__ or "")}
    page = (ROOT / "docs/commands.md").read_text()
    assert tree | {0, 130} == {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)}


def test_the_readme_is_a_front_door() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 140
    assert not [line for line in lines if len(line) > 100]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_says_what_it_is_for_and_what_to_expect(path: Path) -> None:
    pytest.importorskip("torch")
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("data set", "expected", "hardware", "time"):
        assert any(line.startswith(f"# {word}") for line in head), word


FILES = ["CHANGELOG.md", "Makefile", ".ci/run", "pyproject.toml", "constraints.txt", "mkdocs.yml"]


@pytest.mark.parametrize("document", [*DOCUMENTS, *SCRIPTS, *FILES])
def test_no_path_of_a_machine_is_written_down(document: str) -> None:
    text = (ROOT / document).read_text()
    assert not re.findall(r"/(?:work|root|home)/\w+", text)
