from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Two cores are shared by all tests; one thread each is faster than two that spin.
os.environ.setdefault("OMP_NUM_THREADS", "2")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the tests goes into the user's own cache, the key of its engines least of all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINEDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real images for development; they are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"real images are not here: {SHARED.name} of the workplace is missing")
    return SHARED
