"""The error tree. Each error says what is wrong, what was expected, and what to do.

FinedgeError            1  a check failed
├── UsageError          2  wrong arguments, unknown model or recipe key
├── SystemProblem       3  environment: a package or library is missing, the disk is full
│   └── BackendMissing  3  a backend cannot run here
├── DataError           4  images, labels
│   └── BundleError     4  digest mismatch, newer format, missing file
├── GateError           5  accuracy or parity below the gate
├── InvalidBenchmark    6  the measurement does not support the claim
└── SourceLost          7  a camera or stream went away
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import Any, ClassVar

from finedge.sanitize import clean

# What the system can refuse in any command (`OSError.errno`), and what to do. Exit code 3.
FREE_SPACE = "free some space"
OTHER_FOLDER = "choose another folder, or chown or remount it"
REFUSED = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EACCES: OTHER_FOLDER,
    errno.EPERM: OTHER_FOLDER,
    errno.EROFS: OTHER_FOLDER,
}


class FinedgeError(Exception):
    """Base of every error that a user can cause or meet.

    The texts come from users, files and servers. Secrets and control characters are removed here.

    Args:
        what: what is wrong, with the value.
        expected: what would be right.
        fix: what to do.
        result: a JSON object that the command still prints on stdout, e.g. the numbers of a gate
            that was not passed.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, expected: str = "", fix: str = "", result: dict[str, Any] | None = None
    ) -> None:
        self.what, self.expected, self.fix = clean(what), clean(expected), clean(fix)
        self.result = result
        lines = [self.what]
        if expected:
            lines.append(f"  expected: {self.expected}")
        if fix:
            lines.append(f"  to do: {self.fix}")
        super().__init__("\n".join(lines))


class UsageError(FinedgeError):
    """Wrong arguments, an unknown name, an unknown recipe key."""

    exit_code = 2


class SystemProblem(FinedgeError):
    """The machine lacks something: a package, a system library, disk space."""

    exit_code = 3


class BackendMissing(SystemProblem):
    """A backend cannot run here; the text is its `why_not()`."""


class DataError(FinedgeError):
    """Images, labels or splits are not usable."""

    exit_code = 4


class BundleError(DataError):
    """A bundle is damaged, incomplete or newer than this program."""


class GateError(FinedgeError):
    """An accuracy or parity gate was not passed."""

    exit_code = 5


class InvalidBenchmark(FinedgeError):
    """The sample is too small for the claim, or the machine throttled."""

    exit_code = 6


class SourceLost(FinedgeError):
    """A camera or stream ended unexpectedly."""

    exit_code = 7


def as_finedge_error(error: BaseException) -> FinedgeError | None:
    """Return an error of the system or the interpreter as a typed error; None for a bug.

    OSError and MemoryError come from the environment (exit code 3). RecursionError comes from
    data that is nested too deeply. Text that is not Unicode or holds a NUL is data too (4).
    """
    if isinstance(error, OSError):
        named = f"{error.strerror or type(error).__name__}: {error.filename!s}"
        fix = REFUSED.get(error.errno or 0, "check the file that is named above, and run it again")
        return SystemProblem(
            named if error.filename else str(error), fix=f"{fix}; nothing that existed was changed"
        )
    if isinstance(error, MemoryError):
        what = f"memory ran out: {error}" if str(error) else "memory ran out"
        return SystemProblem(
            what,
            fix="end other programs, or give smaller images, models or batches",
        )
    if isinstance(error, RecursionError):
        return DataError(
            "the input is nested too deeply",
            fix="FINEDGE_LOG=DEBUG shows where",
        )
    if isinstance(error, UnicodeError) or str(error).startswith("embedded null"):
        return DataError(
            f"a file name or text is not valid: {error}",
            expected="Unicode without NUL",
            fix="FINEDGE_LOG=DEBUG shows where",
        )
    # This is how pathlib reports a loop of links before Python 3.13.
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):
        return SystemProblem(str(error), fix=f"{OTHER_FOLDER}; nothing that existed was changed")
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'? known: a, b, x` for an unknown `name`."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(names)}"
