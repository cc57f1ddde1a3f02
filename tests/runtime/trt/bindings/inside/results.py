"""A plugin of pytest: each result is a line of JSON in the file $RESULTS, written at once.

So the results before a crash are there after it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write what happened, except that a fixture was set up or torn down well."""
    if report.when == "call" or not report.passed:
        path, _, name = report.nodeid.partition("::")
        row = {"part": Path(path).stem, "test": name, "outcome": report.outcome}
        with Path(os.environ["RESULTS"]).open("a") as file:
            file.write(json.dumps({**row, "text": report.longreprtext}) + "\n")
