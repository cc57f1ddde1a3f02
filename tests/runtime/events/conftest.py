"""Results as the tests of the sinks make them."""

from __future__ import annotations

from tests.runtime.sinks.conftest import make_result

__all__ = ["make_result"]
