"""Everything that an engine depends on.

Two equal keys mean the same engine. Its bytes are no sign: two builds of one model differ.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from finedge.errors import BundleError
from finedge.runtime.batch_profile import MAX_BATCH
from finedge.schema import Constraint, Misfit, Text, between, decode

PORTABLE = "portable"
LibraryName = Annotated[
    str,
    Constraint(
        ("tensorrt", "tensorrt-rtx").__contains__,
        "tensorrt or tensorrt-rtx",
    ),
]
# It becomes a part of file names.
_CAPABILITY = re.compile(r"[\w.+]{1,200}")
Capability = Annotated[str, Constraint(_CAPABILITY.fullmatch, "like 8.7, sm86+sm89, portable")]
# Records of engines, and what `finedge build` prints, have this name from before the field was
# renamed. The digest is made of it too, so that stored engines stay valid.
_JSON_NAMES = {"library": "flavour"}
Batch = Annotated[int, between(1, MAX_BATCH)]


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built from, by which library, for which GPU.

    Attributes:
        onnx: sha256 of the bytes that TensorRT parsed: the bundle's file after our graph passes, so
            that a changed pass makes a new engine.
        plugin: sha256 of the plugin's images, or "" where the engine contains none.
        library: tensorrt or tensorrt-rtx.
        version: the library's version; other versions do not load the engine.
        gpu: the board, like `Orin (8SM, 8GiB)`, the targets (`sm86+sm89`), or `portable`.
        compute_capability: like "8.7", the targets, or `portable`.
        precision: fp32, fp16, int8 or int8-fp32.
        profile: batch sizes (min, opt, max).
        flags: every other option as "name=value", sorted.
    """

    onnx: Text
    plugin: Text
    library: LibraryName
    version: Text
    gpu: Text
    compute_capability: Capability
    precision: Literal["fp32", "fp16", "int8", "int8-fp32"]
    profile: tuple[Batch, Batch, Batch]
    flags: tuple[Text, ...]

    def digest(self) -> str:
        """Return the sha256 of all fields, as hex."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def differing(self, other: EngineKey) -> tuple[str, ...]:
        """Return the names of the fields that differ."""
        return tuple(
            f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)
        )

    def explain(self, other: EngineKey) -> str:
        """Return `field: value in other -> value here` for each differing field.

        Digests are cut to 12 digits.
        """
        return ", ".join(
            f"{name}: {_text(getattr(other, name))} -> {_text(getattr(self, name))}"
            for name in self.differing(other)
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data, with the library under its name in JSON."""
        return {_JSON_NAMES.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: object) -> EngineKey:
        """Read what `to_json` wrote, also where JSON made lists of its tuples.

        Raises:
            BundleError: it is no engine key.
        """
        names = {in_json: name for name, in_json in _JSON_NAMES.items()}
        if isinstance(data, Mapping):
            data = {names.get(name, name): value for name, value in data.items()}
        try:
            return decode(cls, data, at="key", strict=True)
        except Misfit as error:
            fix = "delete the engine's .json; the engine is then built again"
            raise BundleError(
                f"not an engine key: {error}",
                expected=error.expected,
                fix=fix,
            ) from error


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + " ".join(map(str, value)) + "]"
    return f"{value}"[:12] if len(f"{value}") == 64 else f"{value}" or "none"
