from pathlib import Path

import pytest

from finedge.errors import UsageError
from finedge.jetson.serve_config.command import TARGETS, serve_config
from finedge.jetson.serve_config.folder import MARK


def tree(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("target", TARGETS)
def test_the_notes_are_in_the_result_the_log_and_the_readme(bundle, tmp_path, target, caplog):
    out = tmp_path / "deep" / "out"
    result = serve_config(target, bundle.path, out=out)
    assert set(result["files"]) == tree(out)
    assert result["target"] == target
    readme = "".join(file.read_text() for file in out.rglob("README.md"))
    assert result["notes"]
    for note in result["notes"]:
        assert note in caplog.text
        assert note in readme


@pytest.mark.parametrize("target", TARGETS)
def test_a_second_run_replaces_the_first(bundle, tmp_path, target):
    out = tmp_path / "out"
    serve_config(target, bundle.path, out=out)
    before = tree(out)
    (out / next(f for f in before if f.endswith("labels.txt"))).write_text("old")
    serve_config(target, bundle.path, out=out)
    assert tree(out) == before
    assert next(out.rglob("labels.txt")).read_text() != "old"


def test_the_other_models_of_a_repository_stay(bundle, tmp_path):
    other = tmp_path / "models" / "other" / "1" / "model.plan"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"other")
    serve_config("triton", bundle.path, out=tmp_path / "models")
    assert other.read_bytes() == b"other"


@pytest.mark.parametrize("below", ["", "below"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_file_in_the_way_is_an_error(target, below, bundle, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="file"):
        serve_config(target, bundle.path, out=tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_somebody_else_is_not_replaced(bundle, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UsageError, match="did not write"):
        serve_config("deepstream", bundle.path, out=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    (tmp_path / "README.md").write_text(MARK)
    for batch in (0, 10**30):
        with pytest.raises(UsageError, match=f"--batch {batch}"):
            serve_config("deepstream", bundle.path, out=tmp_path, batch=batch)
    with pytest.raises(UsageError, match="--plugin"):
        serve_config("deepstream", bundle.path, out=tmp_path, plugin=Path("/lib/a\nbatch-size=1"))
