"""A headless Chromium that writes nothing, asks nobody and logs to stderr."""

from __future__ import annotations

import pytest

from benchmarks.report_picture import CHROMIUM, HEADLESS

FLAGS = [*HEADLESS, "--enable-logging=stderr", "--virtual-time-budget=2000"]
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (Debian package: chromium)"
)
