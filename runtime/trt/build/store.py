"""Engines on disk: a file each, with a .json beside it that holds key, digest and record.

They lie in the bundle (`BUNDLE/engines`, not part of its manifest), or under
`$FINEDGE_CACHE/engines/<bundle digest>` where the bundle cannot be written. Only engines that this
machine built are used (`finedge.runtime.trt.build.seal`): others, and those whose record another
version of finedge wrote, are named once in the log and built again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from finedge.bundle import Bundle
from finedge.document import read_json
from finedge.errors import BundleError
from finedge.files import write_bytes, write_text
from finedge.runtime.machine.cache import cache_folder
from finedge.runtime.trt.build.key import EngineKey
from finedge.runtime.trt.build.seal import is_trusted, sealed
from finedge.runtime.trt.library import MODULES

log = logging.getLogger(__name__)

SCHEMA = 1  # of the record


@dataclass(frozen=True)
class StoredEngine:
    """An engine on disk, its key and its record."""

    path: Path
    key: EngineKey
    record: Mapping[str, Any]

    def read(self) -> bytes:
        """Return the engine's bytes, checked against the recorded digest.

        No other bytes may be deserialised: an engine is a program.

        Raises:
            BundleError: the file is missing or its bytes differ.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{self.path} cannot be read: {error}", fix="finedge build"
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.record["sha256"]:
            recorded = str(self.record["sha256"])[:12]
            raise BundleError(
                f"{self.path} has sha256 {digest[:12]}...",
                expected=f"{recorded}... as recorded",
                fix="finedge build",
            )
        return data

    def with_entry(self, name: str, value: Any) -> StoredEngine:
        """Return the engine with an entry added to its record, which is written and sealed."""
        record = sealed({**self.record, name: value})
        write_text(self.path.with_suffix(".json"), json.dumps(record, indent=1))
        return StoredEngine(self.path, self.key, record)

    def is_whole(self) -> bool:
        """Tell whether `read` would return its bytes; the reason why not is logged."""
        try:
            self.read()
        except BundleError as error:
            log.warning(
                "%s: this engine is not used; it is built again where no other fits", error.what
            )
            return False
        return True


@dataclass(frozen=True)
class EngineStore:
    """The engines of one bundle: new ones go to `folder`; `others` are searched as well."""

    folder: Path
    others: tuple[Path, ...] = ()

    @classmethod
    def of(cls, bundle: Bundle) -> EngineStore:
        """Return the store of a bundle.

        Engines that were built while the bundle could be written are still read when it cannot.
        """
        folder, inside = engines_folder(bundle), bundle.path / "engines"
        return cls(folder, () if folder == inside else (inside,))

    def find(self, key: EngineKey) -> StoredEngine | None:
        """Return the engine with exactly this key."""
        return next((engine for engine in self if engine.key == key), None)

    def nearest(self, key: EngineKey) -> StoredEngine | None:
        """Return the engine whose key differs in the fewest fields.

        An engine of the same precision comes before any other.
        """

        def distance(engine: StoredEngine) -> tuple[bool, int]:
            return engine.key.precision != key.precision, len(key.differing(engine.key))

        return min(self, key=distance, default=None)

    def keep(self, key: EngineKey, engine_bytes: bytes, record: Mapping[str, Any]) -> StoredEngine:
        """Write an engine, then its record.

        If the process ends in between, the digest of an older record no longer fits and the engine
        is built again.
        """
        path = self.folder / file_name(key)
        digest = hashlib.sha256(engine_bytes).hexdigest()
        plain = {
            "schema": SCHEMA,
            "key": key.to_json(),
            "sha256": digest,
            "bytes": len(engine_bytes),
            **record,
        }
        whole = sealed(plain)
        write_bytes(path, engine_bytes)
        write_text(path.with_suffix(".json"), json.dumps(whole, indent=1))
        return StoredEngine(path, key, whole)

    def __iter__(self) -> Iterator[StoredEngine]:
        """Yield every engine that has a record of this machine."""
        for folder in (self.folder, *self.others):
            for path in sorted(folder.glob("*.json")):
                engine = _read(path)
                if engine:
                    yield engine


def engines_folder(bundle: Bundle) -> Path:
    """Return the folder for new engines: in the bundle, or in the cache if that is read-only."""
    inside = bundle.path / "engines"
    writable = os.access(inside if inside.is_dir() else bundle.path, os.W_OK)
    return inside if writable else cache_folder() / "engines" / bundle.digest()


def file_name(key: EngineKey) -> str:
    """Return `<gpu>-<trt>-<precision>-<key8>.engine`.

    An example is orin-8sm-8gib-trt10.3.0-fp16-1b9c03ef.engine.
    """
    return f"{machine_name(key)}-{key.precision}-{key.digest()[:8]}.engine"


def machine_name(key: EngineKey) -> str:
    """Return `<gpu>-<trt>`, for file names: the parts that a timing cache depends on."""
    gpu = re.sub(r"[^a-z0-9+]+", "-", key.gpu.lower()).strip("-")
    return f"{gpu}-{MODULES[key.library][1]}{key.version}"


def _read(path: Path) -> StoredEngine | None:
    """Return the engine of a record, or None; the engine and its record are files, not links."""
    engine = path.with_suffix(".engine")
    try:
        record = read_json(path, error=BundleError, fix="finedge build")
        schema = record.get("schema") if isinstance(record, Mapping) else None
        if isinstance(schema, int) and schema != SCHEMA:
            _log_other_version(path, schema)
            return None
        key = EngineKey.from_json(record["key"] if isinstance(record, Mapping) else record)
    except (OSError, KeyError, BundleError) as error:
        reason = getattr(error, "what", error)
        log.warning("%s is not an engine's record (%s): ignored", path, reason)
        return None
    if path.is_symlink() or engine.is_symlink() or not engine.is_file():
        return None
    if not is_trusted(record):
        _log_foreign(engine)
        return None
    return StoredEngine(engine, key, record)


@cache
def _log_other_version(path: Path, schema: int) -> None:
    log.warning(
        "%s was written by another version of finedge (schema %d, expected %d): "
        "its engine is not used, and built again when it is needed",
        path,
        schema,
        SCHEMA,
    )


@cache
def _log_foreign(engine: Path) -> None:
    log.warning(
        "%s was not built by this user on this machine: it is not used, "
        "finedge build makes another",
        engine,
    )
