"""Which engines this machine built: their records carry a seal made with a local secret.

An engine is a program: TensorRT runs its bytes. A digest that lies beside it proves nothing,
because whoever made the bundle wrote both. The secret is made once per user, in
`$FINEDGE_CACHE/engine.key`. Another one may be trusted too, where one user of a machine builds for
another:
`$FINEDGE_ENGINE_KEY`, or systemd's credential `engine.key` (on a Jetson, that of the user who
deploys: jetson/install.sh).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from finedge.files import write_bytes
from finedge.regular_files import open_regular
from finedge.runtime.machine.cache import cache_folder

log = logging.getLogger(__name__)

SEAL = "seal"  # the record's field
NAME = "engine.key"
BYTES = 32


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return an engine's record with this machine's seal, which replaces an older one."""
    plain = {k: v for k, v in record.items() if k != SEAL}
    return {**plain, SEAL: _seal(plain, _own(cache_folder()))}


def is_trusted(record: Mapping[str, Any]) -> bool:
    """Tell whether this machine, or one that it trusts, sealed exactly this record."""
    plain = {k: v for k, v in record.items() if k != SEAL}
    seal = record.get(SEAL)
    if not isinstance(seal, str) or not seal.isascii():
        return False
    return any(hmac.compare_digest(seal, _seal(plain, secret)) for secret in _trusted())


def _seal(record: Mapping[str, Any], secret: bytes) -> str:
    text = json.dumps(record, sort_keys=True)
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def _trusted() -> Iterator[bytes]:
    yield _own(cache_folder())
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    for path in (os.environ.get("FINEDGE_ENGINE_KEY"), folder and f"{folder}/{NAME}"):
        secret = _secret_in(Path(path)) if path else None
        if secret:
            yield secret


@cache
def _own(folder: Path) -> bytes:
    """Return this user's secret; the first call makes it.

    Where it cannot be stored, it lasts as long as the process.
    """
    path = folder / NAME
    secret = _secret_in(path)
    if secret:
        return secret
    new = secrets.token_hex(BYTES).encode()
    try:
        write_bytes(path, new, mode=0o600)
    except OSError as error:
        log.warning(
            "%s cannot be written (%s): engines are built again at every start",
            path,
            error.strerror,
        )
        return new
    return _secret_in(path) or new  # another process may have been faster


def _secret_in(path: Path) -> bytes | None:
    """Return a secret, or None where there is none or it is too short to be one."""
    try:
        with open_regular(path) as file:
            secret = file.read(1024).strip()
    except OSError:
        return None
    return secret if len(secret) >= BYTES else None
