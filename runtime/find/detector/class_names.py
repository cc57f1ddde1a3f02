"""The classes of a detector by number, and which of them count."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finedge.errors import DataError, UsageError, nearest
from finedge.options import comma_list


@dataclass(frozen=True)
class Classes:
    """The names of some classes, and the numbers of those that count (None: all)."""

    names: Mapping[int, str]
    kept: frozenset[int] | None = None

    def name(self, number: int) -> str:
        """Return the name of a class, or its number."""
        return self.names.get(number, str(number))


def read_classes(
    metadata: Mapping[str, str], *, file: Path | None = None, kept: str | None = None
) -> Classes:
    """Return the classes of a detector.

    Args:
        metadata: of the ONNX file; ultralytics writes `names` as a Python dict.
        file: a name in each line, from class 0; it wins over the metadata.
        kept: names or numbers with commas.

    Raises:
        UsageError: `kept` names a class that is not there.
        DataError: the file cannot be read.
    """
    names = _from_file(file) if file is not None else _from_metadata(metadata.get("names", ""))
    if kept is None:
        return Classes(names)
    numbers = {name: number for number, name in names.items()}
    return Classes(
        names, frozenset(_number(word, numbers) for word in comma_list(kept, kind="class"))
    )


def _number(word: str, numbers: Mapping[str, int]) -> int:
    if word in numbers:
        return numbers[word]
    if word.isdecimal():
        return int(word)
    expected = nearest(word, numbers) if numbers else "numbers: the model has no names"
    raise UsageError(f"--find-classes: unknown class '{word}'", expected=expected)


def _from_file(path: Path) -> dict[int, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"--find-names {path}: {error.strerror}") from error
    return {i: line.strip() for i, line in enumerate(lines) if line.strip()}


def _from_metadata(text: str) -> dict[int, str]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {}
    return {int(k): str(name) for k, name in value.items() if str(k).isdecimal()}
