"""What the documents say exists: files, links, commands and their options."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from finedge.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
SCRIPTS = [
    "examples/demo.sh",
    "examples/try.sh",
    "examples/make_bundle.sh",
    "benchmarks/cpu/resnet50_cnl.sh",
    "benchmarks/cpu/plain_against_cnl.sh",
]
RECIPES = sorted((ROOT / "train/recipes").glob("*.toml"))


def commands(text):
    """Yield (name, options) of each `finedge ...` line of a code block or script."""
    joined = re.sub(r"\\\n", " ", text)
    for line in re.findall(r"^(?:.*(?:\|\| |\{ |&& ))?\s*finedge ([a-z][^\n#]*)", joined, re.M):
        words = line.split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        yield name, re.findall(r"(--[a-z][a-z0-9-]*)", line)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_resolves(document):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text())
    broken = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not broken


@pytest.mark.parametrize("document", ["README.md", *SCRIPTS])
def test_every_command_and_option_that_is_shown_exists(document):
    shown = list(commands((ROOT / document).read_text()))
    assert shown
    unknown = sorted({name for name, _ in shown} - set(COMMANDS))
    assert not unknown
    for name in {name for name, _ in shown}:
        page = subprocess.run(
            [sys.executable, "-m", "finedge", *name.split(), "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        if page.returncode == 3:
            pytest.skip(page.stderr)
        options = {option for other, found in shown if other == name for option in found}
        assert options <= set(re.findall(r"(--[a-z][a-z0-9-]*)", page.stdout)) | {"--help"}, name


def test_the_make_targets_that_are_shown_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    shown = {
        t for d in DOCUMENTS[:2] for t in re.findall(r"`?make ([a-z0-9-]+)", (ROOT / d).read_text())
    }
    assert {"demo", "test", "try"} <= shown
    assert shown <= targets


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_says_what_it_is_for_and_what_to_expect(path):
    pytest.importorskip("torch")
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("data set", "expected", "hardware", "time"):
        assert any(line.startswith(f"# {word}") for line in head), word


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, *SCRIPTS, "Makefile", ".ci/run", "pyproject.toml", "constraints.txt"]
)
def test_no_path_of_a_machine_is_written_down(document):
    text = (ROOT / document).read_text()
    assert not re.findall(r"/(?:work|root|home)/\w+", text)
