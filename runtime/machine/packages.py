"""Importing packages that may be missing or broken.

A broken installation raises more than ImportError: OSError of a library that it links, RuntimeError
of a placeholder on the package index, ValueError of another NumPy, AttributeError of a folder that
an uninstalled package left, SystemExit of a package that gives up.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import packages_distributions
from typing import Any

from finedge.errors import FinedgeError, SystemProblem

MAX_TEXT = 300  # characters of a failure that a probe reports


class PackageMissing(SystemProblem):
    """A package is not installed."""


class PackageBroken(SystemProblem):
    """A package is installed and does not load."""


def is_installed(name: str) -> bool:
    """Tell whether a package can be found; it is not imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # ValueError: a loaded module without a __spec__
        return sys.modules.get(name) is not None


def load_package(name: str) -> Any:
    """Import a package or a module of it.

    Raises:
        PackageMissing: it is not installed.
        PackageBroken: it is installed and does not load; the text has the reason in one line.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or f"{name}.".startswith(f"{error.name}."):
            raise PackageMissing(f"the package {name} is missing") from error
        raise _broken(name, f"does not load: {failure_text(error)}") from error
    except (Exception, SystemExit) as error:
        raise _broken(name, f"does not load: {failure_text(error)}") from error


def package_version(name: str) -> str:
    """Return a package's `__version__`, after importing it.

    Raises:
        PackageMissing: it is not installed.
        PackageBroken: it does not load, or it has no version: only its empty folder is left.
    """
    package = load_package(name)
    try:
        return str(package.__version__)
    except AttributeError as error:
        reason = "has no __version__: its folder may be left of an uninstalled one"
        raise _broken(name, reason) from error


def failure_text(error: BaseException) -> str:
    """Return an exception's type and text in one line of at most `MAX_TEXT` characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."


def reason_text(error: FinedgeError) -> str:
    """Return what is wrong and what to do, as a probe reports it."""
    return f"{error.what}: {error.fix}" if error.fix else error.what


def reinstall_command(name: str) -> str:
    """Return the command that installs a package again; it names what pip installed it from."""
    module = name.split(".")[0]
    distributions = sorted(set(packages_distributions().get(module, [module])))
    return f"pip install --force-reinstall {' '.join(distributions)}"


def _broken(name: str, reason: str) -> PackageBroken:
    return PackageBroken(f"the package {name} {reason}", fix=reinstall_command(name))
