"""The programs in examples/, as a reader runs them."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import pytest

from finedge.synthetic.command import encoded_image
from finedge.synthetic.species import SPECIES
from tests.finedge.in_terminal import ROOT

BUNDLE = "examples/birds.finedge"
PROGRAMS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
LONGEST = 60  # lines


@pytest.fixture
def photos(tmp_path):
    """Six rendered photos of three species, named by species."""
    for species in range(3):
        for index in range(2):
            path = tmp_path / f"{SPECIES[species].name}-{index}.jpg"
            path.write_bytes(encoded_image((2, species, index), size=224, seed=0))
    return tmp_path


def run(name, *words):
    return subprocess.run(
        [sys.executable, f"examples/{name}", *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    ).stdout.splitlines()


def test_classify_photo_names_the_species(photos):
    paths = sorted(photos.iterdir())
    lines = run("classify_photo.py", BUNDLE, *paths)
    assert len(lines) == 4 * len(paths)
    best = [lines[4 * i + 1].split()[1] for i in range(len(paths))]
    right = sum(path.name.startswith(label) for path, label in zip(paths, best, strict=True))
    assert right >= 4  # of 6; chance is one in twelve


def test_watch_camera_prints_each_change():
    lines = run("watch_camera.py", BUNDLE, "--frames", 100)
    labels = [line.split()[1] for line in lines]
    assert len(labels) >= 2  # a bird stays for 90 frames
    assert all(a != b for a, b in itertools.pairwise(labels))
    assert all(re.match(r"\d\d:\d\d:\d\d  .* \d+\.\d%  .* ms$", line) for line in lines)


def test_compare_variants_has_a_line_for_each(photos):
    _, _, *rows = run("compare_variants.py", BUNDLE, photos)
    assert [row.split()[0] for row in rows] == ["fp32", "fp16", "int8"]
    assert rows[0].endswith("100.0%")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_short_and_uses_the_public_names_only(name):
    text = (ROOT / "examples" / name).read_text()
    assert len(text.splitlines()) <= LONGEST
    assert not re.search(r"^\s*(?:from|import) finedge\.", text, re.MULTILINE)
