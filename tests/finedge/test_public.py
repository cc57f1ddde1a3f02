"""The public names of the package: lazy, typed, and with examples that run."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import pytest

import finedge
from finedge.synthetic.command import encoded_image, render
from tests.finedge.in_terminal import ROOT

HEAVY = ("numpy", "onnxruntime", "onnx", "cv2", "PIL", "rich", "tyro", "torch")
# What a user of the library calls. Each has an example in its docstring.
ENTRY_POINTS = {
    "finedge": "",
    "finedge.bundle": "Bundle",
    "finedge.data.open": "open_dataset",
    "finedge.image": "read_image",
    "finedge.image.decode": "decode",
    "finedge.preprocess": "preprocess",
    "finedge.schema": "decode",
    "finedge.redact": "mask",
    "finedge.progress": "progress_bar",
    "finedge.runtime.classifier": "Classifier",
    "finedge.runtime.sources": "open_source",
    "finedge.runtime.backend": "Session",
}
TRAINED = {"finedge.export.command": "export", "finedge.calib.command": "calibrate"}


def test_importing_the_package_is_cheap():
    code = f"import sys, finedge; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", finedge.__all__)
def test_each_public_name_is_there_and_listed(name):
    assert getattr(finedge, name) is not None
    assert name in dir(finedge)


def test_a_public_name_is_the_object_of_its_module():
    from finedge import Bundle, Classifier, open_source, read_image

    homes = [
        Bundle.__module__,
        Classifier.__module__,
        open_source.__module__,
        read_image.__module__,
    ]
    assert homes == [
        "finedge.bundle",
        "finedge.runtime.classifier",
        "finedge.runtime.sources",
        "finedge.image",
    ]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Bundel'"):
        _ = finedge.Bundel  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        exec("from finedge import Bundel")


def examples(module: ModuleType, name: str) -> list[doctest.DocTest]:
    """Return the examples of one docstring."""
    thing = attrgetter(name)(module) if name else module
    text = thing.__doc__ or ""
    names = {**vars(module), "Path": Path}
    test = doctest.DocTestParser().get_doctest(text, names, name or module.__name__, None, 0)
    return [test] if test.examples else []


@pytest.mark.parametrize(("home", "name"), ENTRY_POINTS.items())
def test_the_example_in_a_docstring_is_true(home, name, monkeypatch, tmp_path):
    """They run beside `examples/birds.finedge`, `photo.jpg` (224 x 224) and a data set `birds`."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "photo.jpg").write_bytes(encoded_image((2, 2, 0), size=224, seed=0))
    render(tmp_path / "birds", classes=2, train=2, val=1, test=1, size=32)
    monkeypatch.chdir(tmp_path)
    tests = examples(importlib.import_module(home), name)
    if not tests:
        pytest.skip(f"{home}:{name} has no example yet")
    for test in tests:
        report: list[str] = []
        failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
        assert failed.failed == 0, "".join(report)


@pytest.mark.parametrize(("home", "name"), TRAINED.items())
def test_what_needs_a_trained_run_has_an_example_too(home, name):
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as missing:
        pytest.skip(str(missing))
    if not examples(module, name):
        pytest.skip(f"{home}:{name} has no example yet")
