"""The rows of a sweep: JSON files that are written whole, one for each training and each test.

OUT/rows/DATA/RECIPE/BACKBONE-SIZE/FAMILY-DIGEST-sSEED.json     accuracy on val, or the error
OUT/test/(the same)                                             right answers on test
OUT/int8/(the same)                                             right answers on test in INT8
OUT/chosen/DATA/RECIPE/BACKBONE-SIZE.json                       what val chose, once test was read
OUT/times/(the same)                                            CPU time of the bundles in INT8
OUT/weights/, OUT/bundles/                                      what was trained, and exported
OUT/spare/                                                      a run while it is exported

Rows also have the CPU, the commit and the versions that made them. Older ones lack some of it, and
are read all the same.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from finedge import __version__
from finedge.document import read_json
from finedge.errors import DataError, FinedgeError
from finedge.files import write_text
from finedge.schema import Constraint, Count, Misfit, Share, decode
from finedge.train.sweep.plan import SEED, Group, Setting, SweepRun

Kind = Literal["rows", "test", "int8"]
REPAIR = "delete it: it is then made again"
Hex = Annotated[
    str, Constraint(lambda text: len(text) % 2 == 0 and set(text) <= HEX, "hexadecimal digits")
]
HEX = frozenset("0123456789abcdef")


class ValRecord(TypedDict):
    """What a row has of val: `Answers.to_json`."""

    top1: Share | None
    n: Count
    loss: float | None


class TrainedRow(TypedDict):
    """What is read of a training's row."""

    val: ValRecord
    parameters: Count
    point: Mapping[str, Any]


class AnswersRow(TypedDict):
    """What is read of a row of test or INT8."""

    top1: Share | None
    n: Count
    right: Hex


class FailedRow(TypedDict):
    """What is read of the row of a failure."""

    error: str


class TimesFile(TypedDict):
    """What is read of the times of a group."""

    cpu_ms: Mapping[str, float]


SHAPES: Mapping[Kind, Any] = {"rows": TrainedRow, "test": AnswersRow, "int8": AnswersRow}


@dataclass(frozen=True)
class Origin:
    """What a row records of the machine that made it.

    Attributes:
        cpu: its name.
        commit: of this code, or "unknown".
        versions: of libraries, by name.
    """

    cpu: str
    commit: str
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"cpu": self.cpu, "commit": self.commit, "versions": dict(self.versions)}


def versions() -> dict[str, str]:
    """Return the versions that a row records."""
    return {"finedge": __version__, "torch": torch.__version__, "machine": platform.machine()}


def error_text(error: Exception) -> str:
    """Return what a row says of a failure."""
    return error.what if isinstance(error, FinedgeError) else f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Answers:
    """Which images a model has right.

    Attributes:
        right: bool [images], in the order of the split.
        loss: mean cross-entropy, or None where it is not measured.
    """

    right: NDArray[np.bool_]
    loss: float | None = None

    @property
    def top1(self) -> float | None:
        """The share of right answers; None without images."""
        return round(float(self.right.mean()), 6) if self.right.size else None

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        loss = None if self.loss is None else round(self.loss, 6)
        return {"top1": self.top1, "n": self.right.size, "loss": loss}


@dataclass(frozen=True)
class Rows:
    """The rows below a folder."""

    out: Path

    def read(self, run: SweepRun, kind: Kind = "rows") -> dict[str, Any] | None:
        """Return a row, or None where there is none.

        Raises:
            DataError: the file is damaged.
        """
        return _read(self._path(run, kind), SHAPES[kind])

    def write(self, run: SweepRun, content: Mapping[str, Any], kind: Kind = "rows") -> None:
        """Write a row."""
        _write(self._path(run, kind), {**identity(run), **content})

    def finished(self, run: SweepRun, kind: Kind = "rows") -> bool:
        """Tell whether a run has a row without an error."""
        row = self.read(run, kind)
        return row is not None and "error" not in row

    def finished_runs(self, setting: Setting, *, seeds: int) -> list[SweepRun]:
        """Return the runs of a setting that are trained, by seed."""
        runs = (SweepRun(setting, seed) for seed in range(SEED, SEED + seeds))
        return [run for run in runs if self.finished(run)]

    def weights(self, run: SweepRun) -> Path:
        """Return the place of a run's weights: a file or a folder."""
        return self.out / "weights" / run.path

    @property
    def spare(self) -> Path:
        """The place of a run that is there only while it is exported."""
        return self.out / "spare"

    def bundle(self, run: SweepRun) -> Path:
        """Return the place of a run's bundle."""
        return self.out / "bundles" / run.path.with_name(f"{run.path.name}.finedge")

    def read_times(self, group: Group) -> dict[str, float]:
        """Return {name of the run: CPU milliseconds of one INT8 inference}."""
        content = _read(self._of_group(group, "times"), TimesFile)
        return {} if content is None else content["cpu_ms"]

    def write_times(self, group: Group, cpu_ms: Mapping[str, float], origin: Origin) -> None:
        """Write the times of a group, measured together."""
        content = {"cpu_ms": dict(cpu_ms), **origin.to_json()}
        _write(self._of_group(group, "times"), content)

    def read_chosen(self, group: Group) -> dict[str, str]:
        """Return {family: digest of its setting} as it was when test was first read."""
        return _read(self._of_group(group, "chosen"), Mapping[str, str]) or {}

    def write_chosen(self, group: Group, digests: Mapping[str, str]) -> None:
        """Write what val chose."""
        _write(self._of_group(group, "chosen"), digests)

    def right(self, run: SweepRun, kind: Kind = "test") -> NDArray[np.bool_] | None:
        """Return the right answers of a run on test, bool [images], or None."""
        row = self.read(run, kind)
        if row is None or "error" in row:
            return None
        right = unpacked(row["right"], row["n"])
        if right.size != row["n"]:
            path = self._path(run, kind)
            raise DataError(f"{path}: {right.size} answers to {row['n']} images", fix=REPAIR)
        return right

    def _path(self, run: SweepRun, kind: Kind) -> Path:
        return self.out / kind / run.path.with_name(f"{run.path.name}.json")

    def _of_group(self, group: Group, kind: str) -> Path:
        return self.out / kind / group.folder.with_name(f"{group.folder.name}.json")


def identity(run: SweepRun) -> dict[str, Any]:
    """Return what a row says of its training."""
    setting = run.setting
    return {
        **vars(setting.group),
        "stage": setting.stage,
        "family": setting.family,
        "model": setting.model,
        "options": dict(setting.options),
        "set": dict(setting.changes),
        "point": dict(setting.point),
        "digest": setting.digest,
        "seed": run.seed,
    }


def packed(right: NDArray[np.bool_]) -> str:
    """Return right answers as hexadecimal digits, four images each."""
    return np.packbits(right).tobytes().hex()


def unpacked(text: str, n: int) -> NDArray[np.bool_]:
    """Return the right answers of `packed`, bool [n]."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
    return bits[:n].astype(np.bool_)


def _read(path: Path, kind: Any) -> dict[str, Any] | None:
    """Return the content of a file, or None where there is none.

    Raises:
        DataError: it is damaged: it has neither the fields of `kind` nor those of a failure.
    """
    try:
        content: dict[str, Any] = read_json(path, error=DataError, fix=REPAIR)
        failed = kind in SHAPES.values() and isinstance(content, Mapping) and "error" in content
        decode(FailedRow if failed else kind, content)
    except FileNotFoundError:
        return None
    except Misfit as error:
        raise DataError(f"{path}: {error}", expected=error.expected, fix=REPAIR) from None
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")
