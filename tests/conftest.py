from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from finedge import redact
from finedge.runtime.machine.cpu import CPUINFO, cpu_flags, cpu_name, listed_flags, owned_cores
from finedge.runtime.ort.int8_products import OVERRIDE, int8_products, measured_products
from finedge.runtime.variant.choose import SWITCH
from tests.made_once import FOLDER

# Two cores are shared by all tests; one thread each is faster than two that spin.
os.environ.setdefault("OMP_NUM_THREADS", "2")
# `auto` is int8 without a timing: each test has a cache and bundles of its own, so each would pay.
os.environ.setdefault(SWITCH, "off")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the tests goes into the user's own cache, the key of its engines least of all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINEDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _folder_of_all_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `made_once` makes is removed with the folders of this session."""
    own = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
        patch.setenv(FOLDER, str(common / "made_once"))
        yield


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that one test learned would be hidden in the texts of all later ones."""
    monkeypatch.setattr(redact, "_learned", {})


def pytest_sessionstart(session: pytest.Session) -> None:
    """Print which CPU runs the suite: pytest_report_header would be silent under -q."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:  # a process of pytest-xdist has none
        for line in _cpu_lines():
            terminal.write_line(line)


def _cpu_lines() -> list[str]:
    """Name the CPU, and what INT8 products do on it."""
    flags, listed = cpu_flags(), listed_flags(CPUINFO)
    emulated = bool(listed) and set(listed) != set(flags)
    elsewhere = f" (the system lists {' '.join(listed)}: emulated)" if emulated else ""
    forced = f" by {OVERRIDE}, {measured_products()} in truth" if os.environ.get(OVERRIDE) else ""
    threads = f"{owned_cores()} cores, OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"
    return [
        f"cpu: {cpu_name()}, {' '.join(flags) or 'none of our flags'}{elsewhere}, {threads}",
        f"int8: products are {int8_products()}{forced}; onnxruntime {_runtime_version()}",
    ]


def _runtime_version() -> str:
    try:
        return version("onnxruntime")
    except PackageNotFoundError:  # onnxruntime-gpu, or a build of one's own
        import onnxruntime

        return str(onnxruntime.__version__)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real images for development; they are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"real images are not here: {SHARED.name} of the workplace is missing")
    return SHARED
