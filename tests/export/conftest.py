from __future__ import annotations

import pytest

from tests.small_models import small_model


@pytest.fixture
def make_model():
    """Build a small model and its spec: see `small_model`."""
    return small_model
