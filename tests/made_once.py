"""Files that all processes of one pytest session share: the first that needs one makes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from finedge.locks import locked_after_wait

FOLDER = "FINEDGE_TESTS_MADE"  # the variable that tests/conftest.py sets


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return the path of `name`, a file or a folder; nobody may change it.

    `make` gets a path to write to. It is called by one process alone, and what it leaves after an
    error is not used.
    """
    place = Path(os.environ[FOLDER], name)
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = place.with_name(f"{place.name}.lock")
    lock.touch()
    with locked_after_wait(lock, on_wait=lambda: None):
        if not place.exists():
            unfinished = place.with_name(f"unfinished-{place.name}")
            make(unfinished)
            unfinished.rename(place)
    return place
