"""Engines on disk: one file each, beside it a .json with its key, its digest and what is known about it.

They are sidecars of a bundle (`BUNDLE/engines`), or lie under `$FINEDGE_CACHE/engines/<bundle digest>` where the bundle cannot be written.
Only engines that this machine built are there for anybody (see `finedge.runtime.trt.build.seal`):
others are named once, and built again.
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
from finedge.runtime.trt.build.key import EngineKey
from finedge.runtime.trt.build.seal import cache_folder, is_ours, sealed
from finedge.runtime.trt.library import MODULES

log = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True)
class Found:
    """An engine on disk and its record."""

    path: Path
    key: EngineKey
    record: Mapping[str, Any]

    def read(self) -> bytes:
        """Return the engine's bytes, checked against the recorded digest: nothing else may be deserialised.

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
            raise BundleError(
                f"{self.path} has sha256 {digest[:12]}...",
                expected=f"{str(self.record['sha256'])[:12]}... as recorded",
                fix="finedge build",
            )
        return data

    def noted(self, name: str, value: Any) -> Found:
        """Return the engine with one more entry in its record, written and sealed anew."""
        record = sealed({**self.record, name: value})
        write_text(self.path.with_suffix(".json"), json.dumps(record, indent=1))
        return Found(self.path, self.key, record)

    def is_whole(self) -> bool:
        """Tell whether `read` would return its bytes; why it would not is logged."""
        try:
            self.read()
        except BundleError as error:
            log.warning("%s: not used, building again where no other fits", error.what)
            return False
        return True


@dataclass(frozen=True)
class EngineStore:
    """The engines of one bundle: new ones go to `folder`; `others` are searched as well."""

    folder: Path
    others: tuple[Path, ...] = ()

    @classmethod
    def of(cls, bundle: Bundle) -> EngineStore:
        """Return the store of a bundle; engines built while it could be written are still found when it no longer can."""
        folder, inside = engines_folder(bundle), bundle.path / "engines"
        return cls(folder, () if folder == inside else (inside,))

    def find(self, key: EngineKey) -> Found | None:
        """Return the engine with exactly this key."""
        return next((found for found in self if found.key == key), None)

    def nearest(self, key: EngineKey) -> Found | None:
        """Return the engine whose key differs in the fewest fields, one of the same precision first."""
        return min(
            self,
            key=lambda f: (f.key.precision != key.precision, len(key.differing(f.key))),
            default=None,
        )

    def keep(self, key: EngineKey, engine_bytes: bytes, record: Mapping[str, Any]) -> Found:
        """Write an engine, then its record: killed in between, the digest of an older record no longer fits and the engine is built again."""
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
        return Found(path, key, whole)

    def __iter__(self) -> Iterator[Found]:
        """Yield every engine that has a record of this machine."""
        for folder in (self.folder, *self.others):
            for path in sorted(folder.glob("*.json")):
                found = _read(path)
                if found:
                    yield found


def engines_folder(bundle: Bundle) -> Path:
    """Return where new engines of a bundle go: inside it, or under the cache where it is read-only."""
    inside = bundle.path / "engines"
    writable = os.access(inside if inside.is_dir() else bundle.path, os.W_OK)
    return inside if writable else cache_folder() / "engines" / bundle.digest()


def file_name(key: EngineKey) -> str:
    """Return `<gpu>-<trt>-<precision>-<key8>.engine`, e.g. orin-trt10.3.0-fp16-1b9c03ef.engine."""
    return f"{machine_name(key)}-{key.precision}-{key.digest()[:8]}.engine"


def machine_name(key: EngineKey) -> str:
    """Return `<gpu>-<trt>`: what a timing cache depends on, fit for a file name."""
    gpu = re.sub(r"[^a-z0-9+]+", "-", key.gpu.lower()).strip("-")
    return f"{gpu}-{MODULES[key.library][1]}{key.version}"


def _read(path: Path) -> Found | None:
    """Return the engine of a record, or None; the engine and its record are files, not links."""
    engine = path.with_suffix(".engine")
    try:
        record = read_json(path, error=BundleError, fix="finedge build")
        key = EngineKey.from_json(record["key"] if isinstance(record, Mapping) else record)
    except (OSError, KeyError, BundleError) as error:
        log.warning(
            "%s is not an engine's record (%s): ignored",
            path,
            getattr(error, "what", error),
        )
        return None
    if path.is_symlink() or engine.is_symlink() or not engine.is_file():
        return None
    if not is_ours(record):
        _say_foreign(engine)
        return None
    return Found(engine, key, record)


@cache
def _say_foreign(engine: Path) -> None:
    log.warning(
        "%s was not built by this user on this machine: not used, finedge build makes another",
        engine,
    )
