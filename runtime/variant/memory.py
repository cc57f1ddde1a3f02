"""Remembers choices: a file for each bundle, backend and machine, in the user's cache folder.

A board's bundle may also hold one (`auto.json`): the service there runs under another account.
A file counts only if its whole key is the same: another driver, thread count or bundle is another
question.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from finedge import __version__
from finedge.bundle import Bundle
from finedge.document import read_json
from finedge.errors import DataError, FinedgeError, SystemProblem
from finedge.files import write_text
from finedge.locks import locked_after_wait
from finedge.provenance import AccuracyCost
from finedge.runtime.backend import Backend, HasEngines, SessionOptions
from finedge.runtime.machine.cache import cache_folder
from finedge.runtime.machine.cpu import cpu_flags, cpu_name, owned_cores
from finedge.runtime.report.verdict import ALPHA
from finedge.runtime.variant.choice import Choice
from finedge.runtime.variant.rule import MAX_DROP_BY_CHANCE, TOLERANCE
from finedge.runtime.variant.speed import CONFIDENCE, FASTER, FASTER_IN_CPU_TIME
from finedge.schema import Misfit, decode

log = logging.getLogger(__name__)

FOLDER = "variants"  # in the cache folder
LOCK = "lock"  # not the folder: its lock is taken for each file that is written there
SIDECAR = "auto.json"  # in a bundle's folder
MAX_FILES = 64  # the oldest go
UNCLEAR_S = 3600.0  # after this time, what noise kept from being clear is measured again
# Distributions whose version changes the speed of a session or of the preprocessing.
PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "numpy",
    "opencv-python-headless", "opencv-python", "pillow",
)  # fmt: skip
# Environment variables that change what a session computes with.
SETTINGS = ("FINEDGE_CPU_INT8", "FINEDGE_ORT_PROVIDER")


@dataclass(frozen=True)
class Key:
    """Everything that a choice depends on."""

    bundle: str
    backend: str
    engines: tuple[str, ...]
    threads: int
    spin: bool
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    costs: Mapping[str, Any]
    thresholds: tuple[float, ...] = (
        *(FASTER, FASTER_IN_CPU_TIME, CONFIDENCE),
        *(TOLERANCE, MAX_DROP_BY_CHANCE, ALPHA),
    )

    def to_json(self) -> dict[str, Any]:
        """Return plain data, as a file gives it back."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    @property
    def file_name(self) -> str:
        """The name of its file: one for each key."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return f"{self.bundle[:16]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def key_of(
    opener: Backend,
    bundle: Bundle,
    options: SessionOptions,
    *,
    costs: Mapping[str, AccuracyCost],
) -> Key:
    """Return what the choice for a bundle on a backend depends on."""
    engines = opener.engines(bundle) if isinstance(opener, HasEngines) else ()
    machine = {"cpu": cpu_name(), "flags": cpu_flags(), "machine": platform.machine()}
    return Key(
        bundle.digest(),
        opener.name,
        engines,
        options.threads or owned_cores(),
        options.spin,
        {**machine, **{name: os.environ.get(name, "") for name in SETTINGS}},
        {"finedge": __version__, **installed()},
        {name: asdict(cost) for name, cost in costs.items()},
    )


@cache
def installed() -> Mapping[str, str]:
    """Return the versions of those of `PACKAGES` that are installed."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def remembered(key: Key, bundle: Bundle) -> Choice | None:
    """Return the choice of an earlier start, from the cache folder or from the bundle, or None."""
    folder = _folder()
    places = [] if folder is None else [folder / key.file_name]
    for place in (*places, bundle.path / SIDECAR):
        choice = _read(place, key)
        if choice is not None and choice.variant in bundle.variants() and not _is_old(choice):
            return replace(choice, basis="remembered")
    return None


def remember(key: Key, choice: Choice) -> None:
    """Write a choice into the cache folder; where that fails, a warning says so once."""
    folder = _folder()
    if folder is None:
        return
    try:
        write_choice(folder / key.file_name, key, choice=choice)
        _remove_oldest(folder)
    except OSError as error:
        _warn_once(f"{folder}: {error.strerror}")


def write_choice(path: Path, key: Key, *, choice: Choice) -> None:
    """Write a choice with its key, atomically."""
    content = {"key": key.to_json(), "choice": choice.to_json()}
    write_text(path, json.dumps(content, indent=1))


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one process measure at a time: two would slow each other down."""
    folder = _folder()
    if folder is None:
        yield
        return
    text = "another process times the variants of a bundle on this machine: waiting for it"
    with suppress(OSError):  # where no file can be written, it is not there and nobody waits
        (folder / LOCK).touch()
    with locked_after_wait(folder / LOCK, on_wait=lambda: log.info(text)):
        yield


def _folder() -> Path | None:
    """Return the folder of the choices, or None, with a warning, where there can be none."""
    try:
        folder = cache_folder() / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
    except SystemProblem as error:
        _warn_once(error.what)
        return None
    except OSError as error:
        _warn_once(f"{error.filename}: {error.strerror}")
        return None
    return folder


@cache
def _warn_once(problem: str) -> None:
    log.warning("%s: what `auto` runs is measured at every start", problem)


def _read(path: Path, key: Key) -> Choice | None:
    """Return the choice in a file if its key is the same; a damaged file counts as missing."""
    try:
        data = read_json(path, error=DataError, fix="delete it")
        if not isinstance(data, Mapping) or data.get("key") != key.to_json():
            return None
        return decode(Choice, data.get("choice"), at="choice")
    except FileNotFoundError:
        return None
    except (FinedgeError, Misfit) as error:
        log.warning("%s is not used: %s", path, error)
        return None


def _is_old(choice: Choice) -> bool:
    """Tell whether a choice was unclear, and not made within the last hour."""
    return not choice.is_settled and not 0 <= time.time() - choice.measured_at <= UNCLEAR_S


def _remove_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in files[:-MAX_FILES]:
        path.unlink(missing_ok=True)
