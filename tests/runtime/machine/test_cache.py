"""The folder for what can be made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from finedge.errors import SystemProblem
from finedge.runtime.machine import cache
from finedge.runtime.machine.cache import cache_folder


def test_without_a_setting_the_cache_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINEDGE_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "finedge"


def test_a_user_without_a_home_is_asked_for_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FINEDGE_CACHE")
    monkeypatch.setattr(cache.Path, "home", homeless)
    with pytest.raises(SystemProblem, match="FINEDGE_CACHE"):
        cache_folder()
