"""A folder that results are written to, looked at before the run begins and not at its first result, hours later."""

from __future__ import annotations

import os
from pathlib import Path

from finedge.errors import SystemProblem


def make_folder(folder: Path, *, option: str) -> None:
    """Make a folder where there is none.

    Raises:
        SystemProblem: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "it cannot be written"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise SystemProblem(f"{option}: the folder {folder}: {reason}", expected="a folder that this user can write to", fix="choose another, or chown it")
