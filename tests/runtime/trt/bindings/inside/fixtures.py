"""Fixtures of the tests in here; pytest loads them as a plugin."""

from __future__ import annotations

import gc

import pytest

from tests.runtime.trt.bindings.inside.mock_engine import bench, left_over


@pytest.fixture(scope="session", autouse=True)
def _quick_collections():
    """Leave what was imported out of the collections after each test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left():
    """Engines, contexts and runtimes are gone after each test, each after those that use it."""
    yield
    assert left_over() == {"contexts": 0, "engines": 0, "runtimes": 0, "too_early": 0}


@pytest.fixture
def rig():
    rig = bench()
    yield rig
    assert rig.problems == []


@pytest.fixture
def session(rig):
    session = rig.open()
    yield session
    session.close()
