"""A timer whose numbers a test gives, in the place of the real one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from finedge.runtime.variant.choose import SWITCH
from finedge.runtime.variant.timing import Query, Timing


@dataclass
class GivenTimer:
    """Answers with `ms` by variant in each of `blocks` blocks; `runs` counts the measurements."""

    ms: dict[str, float] = field(default_factory=lambda: {"fp32": 2.0, "fp16": 1.5, "int8": 1.0})
    blocks: int = 8
    runs: int = 0

    def __call__(self, queries: Mapping[str, Query]) -> Timing:
        """Ask each variant once, and return the given times."""
        self.runs += 1
        for query in queries.values():
            query()
        return Timing({name: (self.ms[name],) * self.blocks for name in queries})


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GivenTimer]:
    """The check is on, with a cache of this test, and its times are those of the timer."""
    monkeypatch.setenv(SWITCH, "on")
    monkeypatch.setenv("FINEDGE_CACHE", str(tmp_path / "cache"))
    given = GivenTimer()
    monkeypatch.setattr("finedge.runtime.variant.choose.interleaved", lambda **_: given)
    # It would be timed too where it is installed: test_backend_choice.py does that.
    monkeypatch.setattr("finedge.runtime.variant.backend_choice.is_installed", lambda name: False)
    return given
