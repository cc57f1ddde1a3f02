"""MATLAB 5 files: the lists of four data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finedge.errors import DataError, SystemProblem


def read_mat(path: Path) -> dict[str, Any]:
    """Read a .mat file of version 5: arrays, cells and structures.

    Nothing in it is executed. Dimensions of length 1 are squeezed.

    Raises:
        DataError: the file is missing, or not a .mat file.
        SystemProblem: scipy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise SystemProblem(
            f"reading {path.name} needs the package 'scipy'", fix="pip install 'finedge[train]'"
        ) from error
    try:
        return dict(loadmat(path, squeeze_me=True))
    except (OSError, ValueError, TypeError, NotImplementedError) as error:
        raise DataError(
            f"cannot read {path}: {error}",
            expected="a MATLAB 5 file, as published",
            fix="delete it and run again",
        ) from error
