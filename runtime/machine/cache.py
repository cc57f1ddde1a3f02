"""The folder of this user for what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

from finedge.errors import SystemProblem


def cache_folder() -> Path:
    """Return `$FINEDGE_CACHE`, or ~/.cache/finedge.

    It holds machine settings, timing caches, and engines of read-only bundles.

    Raises:
        SystemProblem: this user has no home folder.
    """
    setting = os.environ.get("FINEDGE_CACHE")
    if setting:
        return Path(setting)
    try:
        return Path.home() / ".cache" / "finedge"
    except RuntimeError as error:
        raise SystemProblem(
            f"this user has no home folder: {error}",
            expected="a folder for machine settings",
            fix="set FINEDGE_CACHE",
        ) from error
