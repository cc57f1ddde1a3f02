"""Why a provider cannot run on this machine. A probe returns the reason, and never raises."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from finedge.errors import SystemProblem
from finedge.runtime.cuda.libcuda import gpu_name
from finedge.runtime.machine.packages import (
    failure_text,
    is_installed,
    load_package,
    package_version,
    reason_text,
)
from finedge.runtime.ort.gpu.providers import GPU_PACKAGE, PROVIDERS, Provider

TRIAL = "finedge.runtime.ort.gpu.trial"
SECONDS = 120  # CUDA loads in a few; a board with a cold disk takes longer
# ONNX Runtime's texts, as version 1.31.1 and NVIDIA's plugin 0.5.0 wrote them here.
LIBRARY = re.compile(r"Failed to load library (\S+) with error: (.+)")
CUDA_FAILURE = re.compile(r"CUDA failure \d+: [^;\n]+")
LONGEST = 400  # characters of a reason


@functools.cache
def why_not(provider: Provider) -> str | None:
    """Return why a provider cannot run here, or None; the result is cached for this process.

    Where its package and the driver are installed, the provider is tried in a process of its own.
    """
    try:
        return _why_not_installed(provider) or why_no_gpu() or _why_trial_failed(provider)
    except Exception as error:  # a broken installation fails in many ways
        return f"its check fails: {failure_text(error)}"


def why_not_each() -> dict[str, str | None]:
    """Return `why_not` of every provider by its name."""
    return {provider.name: why_not(provider) for provider in PROVIDERS}


def why_no_gpu() -> str | None:
    """Return why CUDA's driver offers no GPU, or None."""
    try:
        gpu_name()
    except SystemProblem as error:
        return error.what
    return None


def reason_in(text: str) -> str:
    """Return the cause from ONNX Runtime's messages: the missing library, or CUDA's own text."""
    if match := LIBRARY.search(text):
        return f"{Path(match[1]).name} does not load: {match[2].strip()}"
    if match := CUDA_FAILURE.search(text):
        return match[0].strip()
    return " ".join(text.split())[:LONGEST]


def _why_not_installed(provider: Provider) -> str | None:
    try:
        onnxruntime = load_package("onnxruntime")
        version = package_version("onnxruntime")
    except SystemProblem as error:  # e.g. one that was compiled for another NumPy
        return reason_text(error)
    if not provider.module:
        if provider.name in onnxruntime.get_available_providers():
            return None
        return f"onnxruntime {version} is built without it: {_remedy()}"
    if not is_installed(provider.module):
        return f"the package {provider.module} is missing: {provider.install}"
    if not hasattr(onnxruntime.SessionOptions, "add_provider_for_devices"):
        return f"onnxruntime {version} takes no plugins: it needs 1.24 or newer"
    return None


def _remedy() -> str:
    """Return what to do; both packages write the same folder, and the last one wins."""
    names = {"onnxruntime", "onnxruntime-gpu"}
    installed = {distribution.metadata["Name"] for distribution in _distributions(names)}
    if installed == names:
        return (
            "onnxruntime and onnxruntime-gpu are both installed, in one folder: "
            "pip uninstall both, then pip install onnxruntime-gpu"
        )
    return GPU_PACKAGE


def _distributions(names: set[str]) -> list[importlib.metadata.Distribution]:
    return [d for name in names for d in importlib.metadata.distributions(name=name)]


def _why_trial_failed(provider: Provider) -> str | None:
    folders = [str(Path(folder).resolve()) for folder in sys.path if folder]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    command = [sys.executable, "-m", TRIAL, provider.short]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            env=environment,
            # `-m` looks for modules in the working folder first.
            cwd=Path(sys.executable).parent,
        )
    except subprocess.TimeoutExpired:
        return f"it did not load within {SECONDS} s"
    return _outcome(done)


def _outcome(done: subprocess.CompletedProcess[str]) -> str | None:
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        ending = f"a trial of it ended with {done.returncode}"
        return f"{ending}: {reason_in(done.stderr)}" if done.stderr.strip() else ending
    error = json.loads(lines[-1])["error"]
    # The library that is missing is in the log; the error only says that there was one.
    return None if error is None else reason_in(f"{_library_line(done.stderr)}{error}")


def _library_line(log: str) -> str:
    match = LIBRARY.search(log)
    return f"{match[0]}\n" if match else ""
