"""Wheels that tests read but never install: pinned by hash, downloaded once, kept in a cache.

A list is a requirements file of pip, `wheels.txt` beside the tests that use it (`wheels-slow.txt`
for large ones that only slow tests need). A line names one version, a marker that says for which
machines and Pythons it exists, and a hash for each of them:

    cuda-bindings==12.9.1; platform_machine == "x86_64" --hash=sha256:... --hash=sha256:...

    wheels = pinned(Path(__file__).with_name("wheels.txt"))    # a Wheel by "name==version"
    folder = folder_or_skip(wheels["cuda-bindings==12.9.1"])   # what the wheel contains

`python -m tests.wheels` fetches every `wheels.txt` (`--slow`: the large ones too), so that tests
need no network afterwards. The cache is `finedge-tests/wheels` in `$XDG_CACHE_HOME`, or in
`~/.cache`.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

# A line that ends in a backslash goes on.
CONTINUED = re.compile(r"\s*\\\n\s*")
PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.]+)")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# Seconds for a connection: a machine without a network reports that soon.
TIMEOUT = "15"


class WheelMissing(Exception):
    """A wheel cannot be had here: no network, no room, or none for this Python or machine."""


@dataclass(frozen=True)
class Wheel:
    """One version of a package; `requirement` is its whole line, with marker and hashes."""

    name: str
    version: str
    requirement: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"

    def place(self, python: str = PYTHON) -> Path:
        """Return its folder in the cache; it changes with the hashes and with Python."""
        digest = sha256(self.requirement.encode()).hexdigest()[:12]
        return cache() / f"{self.name}-{self.version}-py{python}-{digest}"


def cache() -> Path:
    """Return the folder of all wheels."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "finedge-tests" / "wheels"


def pinned(path: Path) -> dict[str, Wheel]:
    """Return the wheels of a list by "name==version"."""
    lines = CONTINUED.sub(" ", path.read_text()).splitlines()
    wheels = [_wheel(line) for line in lines if line.strip() and not line.startswith("#")]
    return {str(wheel): wheel for wheel in wheels}


def folder(wheel: Wheel, *, python: str = PYTHON) -> Path:
    """Return the folder of an extracted wheel, downloaded now where the cache lacks it.

    Nobody may write there: it is shared by all tests. `python` is the version that it is for, like
    "3.12".

    Raises:
        WheelMissing: no network, no such wheel for this machine, or a cache that cannot be written;
            pip's reason, or the system's.
        ValueError: its hash is not a pinned one.
    """
    if not wheel.place(python).is_dir():
        reason = _fetch(wheel, python)
        if reason:
            raise WheelMissing(f"{wheel} cannot be downloaded: {reason}")
    return wheel.place(python)


def folder_or_skip(wheel: Wheel) -> Path:
    """Return `folder(wheel)`; where it is missing, skip the test with the reason."""
    import pytest

    try:
        return folder(wheel)
    except WheelMissing as error:
        pytest.skip(str(error))


@functools.cache
def _fetch(wheel: Wheel, python: str) -> str:
    """Download and extract a wheel; return why it failed, or ''. It is tried once a process."""
    try:
        return _fetch_into_cache(wheel, python)
    except OSError as error:
        return f"the cache cannot be written ({error})"


def _fetch_into_cache(wheel: Wheel, python: str) -> str:
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as temporary:
        work = Path(temporary)
        reason = _download(wheel, python, work=work)
        if reason:
            return reason
        archives = list(work.glob("*.whl"))
        if not archives:
            return f"no wheel for Python {python} on this machine"
        extracted = work / "extracted"
        with zipfile.ZipFile(archives[0]) as archive:
            archive.extractall(extracted)
        _move(extracted, wheel.place(python))
    return ""


def _download(wheel: Wheel, python: str, *, work: Path) -> str:
    """Let pip write the wheel into `work`; return the last line that it reports, or ''."""
    requirements = work / "requirements.txt"
    requirements.write_text(wheel.requirement + "\n")
    options = ["--quiet", "--disable-pip-version-check", "--retries", "0", "--timeout", TIMEOUT]
    options += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(work)]
    options += ["--python-version", python] if python != PYTHON else []
    command = [sys.executable, "-m", "pip", "download", *options, "--requirement"]
    done = subprocess.run([*command, str(requirements)], capture_output=True, text=True)
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise ValueError(f"{wheel}: {done.stderr}")
    lines = done.stderr.strip().splitlines() or ["pip failed"]
    # pip does not say that the index was not reached.
    hint = ": is there a network?" if "(from versions: none)" in done.stderr else ""
    return f"{lines[-1]}{hint}" if done.returncode else ""


def _move(source: Path, target: Path) -> None:
    """Rename a finished folder; where another process was faster, its folder stays."""
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _wheel(line: str) -> Wheel:
    pin = PIN.match(line)
    if pin is None:
        raise ValueError(f"{line!r} does not pin a version: expected name==version")
    return Wheel(pin["name"], pin["version"], line.strip())


def main(arguments: list[str]) -> int:
    """Fetch every list below `tests`; return 1 where a wheel is missing."""
    names = ["wheels.txt", *(["wheels-slow.txt"] if "--slow" in arguments else [])]
    paths = [path for name in names for path in sorted(Path(__file__).parent.rglob(name))]
    wheels = [wheel for path in paths for wheel in pinned(path).values()]
    return max(map(_status, wheels), default=0)


def _status(wheel: Wheel) -> int:
    try:
        folder(wheel)
    except WheelMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
