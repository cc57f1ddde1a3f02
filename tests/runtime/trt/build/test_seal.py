"""Engines vouch for nothing themselves: only what this user built on this machine is engine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from finedge.bundle import Bundle
from finedge.runtime.trt.build import seal
from finedge.runtime.trt.build.seal import NAME, is_trusted, sealed
from finedge.runtime.trt.build.store import SCHEMA, EngineStore, file_name
from tests.runtime.trt.build.conftest import KEY


def elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Go on as another user, or on another machine."""
    monkeypatch.setenv("FINEDGE_CACHE", str(folder))


def plant(bundle: Bundle, **more: Any) -> Path:
    """Write an engine and its record by hand, as whoever made the bundle can."""
    folder, data = bundle.path / "engines", b"A FOREIGN ENGINE"
    folder.mkdir(exist_ok=True)
    engine = folder / file_name(KEY)
    engine.write_bytes(data)
    record = {
        "schema": SCHEMA,
        "key": KEY.to_json(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        **more,
    }
    engine.with_suffix(".json").write_text(json.dumps(record))
    return engine


SEALS: dict[str, dict[str, Any]] = {
    "none": {},
    "empty": {"seal": ""},
    "of no secret": {"seal": "0" * 64},
    "no text": {"seal": 1},
    "no ascii": {"seal": "é" * 64},
    "a list": {"seal": ["0" * 64]},
}


@pytest.mark.parametrize("more", SEALS.values(), ids=SEALS)
def test_a_planted_engine_is_not_found_and_that_is_said(
    tiny_bundle: Bundle, more: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    engine = plant(tiny_bundle, **more)
    store = EngineStore.of(Bundle.load(tiny_bundle.path))
    assert store.find(KEY) is None
    assert store.nearest(KEY) is None
    assert list(store) == []
    assert f"{engine} was not built by this user on this machine" in caplog.text


def test_an_engine_built_elsewhere_is_not_found_where_it_is_copied(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch, tmp_path / "there")
    EngineStore.of(tiny_bundle).keep(KEY, b"built there", {})
    copied = shutil.copytree(tiny_bundle.path, tmp_path / "copied.finedge")
    elsewhere(monkeypatch, tmp_path / "here")
    store = EngineStore.of(Bundle.load(copied))
    assert store.find(KEY) is None
    assert store.keep(KEY, b"built here", {}).read() == b"built here"
    engine = store.find(KEY)
    assert engine is not None
    assert engine.read() == b"built here"


def test_an_engine_built_here_is_found_in_a_bundle_that_was_copied_here(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    EngineStore.of(tiny_bundle).keep(KEY, b"built here", {})
    engine = EngineStore.of(
        Bundle.load(shutil.copytree(tiny_bundle.path, tmp_path / "copied.finedge"))
    ).find(KEY)
    assert engine is not None
    assert engine.read() == b"built here"


@pytest.mark.parametrize("field", ["key", "sha256", "golden", "attention"])
def test_a_record_that_was_changed_is_not_believed(tiny_bundle: Bundle, field: str) -> None:
    kept = EngineStore.of(tiny_bundle).keep(
        KEY, b"bytes", {"attention": {"considered": ["plugin"]}}
    )
    file = kept.path.with_suffix(".json")
    record = json.loads(file.read_text())
    changed = {
        "key": {**record["key"], "gpu": "Thor"},
        "sha256": hashlib.sha256(b"other").hexdigest(),
    }
    file.write_text(json.dumps({**record, field: changed.get(field, {"pass": True})}))
    assert list(EngineStore.of(tiny_bundle)) == []


def test_a_noted_record_stays_ours(tiny_bundle: Bundle) -> None:
    kept = EngineStore.of(tiny_bundle).keep(KEY, b"bytes", {})
    kept.with_entry("golden", {"pass": True})
    engine = EngineStore.of(tiny_bundle).find(KEY)
    assert engine is not None
    assert engine.record["golden"] == {"pass": True}


@pytest.mark.parametrize("how", ["FINEDGE_ENGINE_KEY", "CREDENTIALS_DIRECTORY"])
def test_another_users_key_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    elsewhere(monkeypatch, tmp_path / "builder")
    record = sealed({"a": 1})
    elsewhere(monkeypatch, tmp_path / "service")
    assert not is_trusted(record)
    monkeypatch.setenv(
        how, str(tmp_path / "builder" / (NAME if how == "FINEDGE_ENGINE_KEY" else ""))
    )
    assert is_trusted(record)
    assert sealed({"a": 1}) != record, "it signs with its own"


@pytest.mark.parametrize("content", [b"", b"short", b"\n" * 100])
def test_a_key_that_is_none_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    import hmac

    (tmp_path / "weak").write_bytes(content)
    monkeypatch.setenv("FINEDGE_ENGINE_KEY", str(tmp_path / "weak"))
    forged = hmac.new(content.strip(), json.dumps({"a": 1}).encode(), hashlib.sha256).hexdigest()
    assert not is_trusted({"a": 1, "seal": forged})


def test_the_key_is_private_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch, tmp_path / "new")
    record = sealed({"a": 1})
    key = tmp_path / "new" / NAME
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    seal._own.cache_clear()  # as the next process
    assert is_trusted(record)


def test_where_no_key_can_be_kept_engines_last_as_long_as_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    elsewhere(monkeypatch, tmp_path / "file" / "below")
    record = sealed({"a": 1})
    assert is_trusted(record)
    assert "built again at every start" in caplog.text
    seal._own.cache_clear()
    assert not is_trusted(record)


def test_a_key_that_is_a_pipe_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / NAME)
    elsewhere(monkeypatch, tmp_path)
    assert is_trusted(sealed({"built": "here"}))
    os.mkfifo(tmp_path / "another.key")
    monkeypatch.setenv("FINEDGE_ENGINE_KEY", str(tmp_path / "another.key"))
    assert not is_trusted({"seal": "0" * 64})
