"""The classes of a detector by number, and which of them count."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finedge.errors import DataError, UsageError, nearest
from finedge.options import comma_list
from finedge.regular_files import read_regular

MAX_FILE = 2**20  # bytes
MAX_DIGITS = 9


@dataclass(frozen=True)
class Classes:
    """The names of some classes, the numbers of those that count (None: all), and their file."""

    names: Mapping[int, str]
    kept: frozenset[int] | None = None
    file: Path | None = None

    def name(self, number: int) -> str:
        """Return the name of a class, or its number."""
        return self.names.get(number, str(number))

    def check(self, classes: int, *, model: str) -> None:
        """Check names and numbers against a model with so many classes.

        Raises:
            DataError: the file has more or fewer names: they would stand at other classes.
            UsageError: a class to keep that is not there.
        """
        if self.file is not None and len(self.names) != classes:
            raise DataError(
                f"--find-names {self.file} has {len(self.names)} names; {model} has {classes} "
                "classes",
                expected="a name in each line, for each class of the model",
            )
        beyond = sorted(number for number in self.kept or () if number >= classes)
        if beyond:
            raise UsageError(
                f"--find-classes: {model} has no class {beyond[0]}", expected=f"0 to {classes - 1}"
            )


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
        DataError: the file cannot be read, or is no UTF-8 text.
    """
    names = _from_file(file) if file is not None else _from_metadata(metadata.get("names", ""))
    if kept is None:
        return Classes(names, file=file)
    numbers = {name: number for number, name in names.items()}
    words = comma_list(kept, kind="class")
    if not words:
        raise UsageError(f"--find-classes '{kept}'", expected="names or numbers with commas")
    return Classes(names, frozenset(_number(word, numbers) for word in words), file)


def _number(word: str, numbers: Mapping[str, int]) -> int:
    if word in numbers:
        return numbers[word]
    if word.isdecimal() and len(word) <= MAX_DIGITS:
        return int(word)
    expected = nearest(word, numbers) if numbers else "numbers: the model has no names"
    raise UsageError(f"--find-classes: unknown class '{word}'", expected=expected)


def _from_file(path: Path) -> dict[int, str]:
    try:
        lines = read_regular(path, limit=MAX_FILE).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"--find-names {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"--find-names {path}: {error}", expected="UTF-8 text") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return {i: line.strip() or str(i) for i, line in enumerate(lines)}


def _from_metadata(text: str) -> dict[int, str]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {}
    return {
        int(k): str(name)
        for k, name in value.items()
        if str(k).isdecimal() and len(str(k)) <= MAX_DIGITS
    }
