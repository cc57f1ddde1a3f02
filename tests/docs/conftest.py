"""The folders in which the commands of the documents run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finedge.cli import main
from finedge.synthetic.command import render

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "examples" / "birds.finedge"
TRAIN = "train --recipe lite0_fast --data photos --out runs/birds --epochs 1 --size 64"
EXPORT = "export runs/birds --out birds.finedge"


@pytest.fixture(scope="session")
def commands_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH: `finedge` and `python` are this interpreter and this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    for name, command in (("finedge", "-m finedge "), ("python", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command}"$@"\n')
        script.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered birds of four species: `photos` and `photo.jpg` of every page."""
    folder = tmp_path_factory.mktemp("pictures")
    render(folder / "photos", classes=4, train=8, val=4, test=4, size=160)
    shutil.copy(folder / "photos/test/dusky-finch/00000.jpg", folder / "photo.jpg")
    return folder


@pytest.fixture
def desk(tmp_path: Path, pictures: Path) -> Path:
    """What a page may use: the shipped bundle under two names, photos, one photo."""
    folder = tmp_path / "desk"
    shutil.copytree(BUNDLE, folder / "examples" / "birds.finedge")
    shutil.copytree(BUNDLE, folder / "birds.finedge")
    shutil.copytree(pictures, folder, copy_function=os.link, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A run of one epoch (`runs/birds`) and its bundle (`birds.finedge`), made once."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(pictures, folder, copy_function=os.link, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(TRAIN.split()) == 0
        assert main(EXPORT.split()) == 0
    return folder


@pytest.fixture
def lay(request: pytest.FixtureRequest, desk: Path) -> Callable[[str], None]:
    """Put a trained run or its bundle on the desk; training happens at the first call."""

    def put(name: str) -> None:
        trained = request.getfixturevalue("trained")
        if (desk / name).exists():
            shutil.rmtree(desk / name)
        shutil.copytree(trained / name, desk / name)

    return put
