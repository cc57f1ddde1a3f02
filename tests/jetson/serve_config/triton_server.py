"""A real tritonserver from the wheel of nvidia-pytriton, and plain HTTP requests to it.

Nothing of the wheel is imported or installed: its binary runs a model repository that
`finedge serve-config triton` wrote. benchmarks/serve/load.py uses it too.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finedge.jetson.serve_config.python_backend import (
    IMAGE,
    LABEL,
    PROBABILITIES,
    UNKNOWN,
    P,
)
from tests.wheels import PYTHON, folder, pinned

ROOT = Path(__file__).resolve().parents[3]
WHEELS = pinned(Path(__file__).with_name("wheels-slow.txt"))
OUTPUTS = (LABEL, P, UNKNOWN, PROBABILITIES)
START_S = 60.0


@dataclass(frozen=True)
class TritonServer:
    """A server that is ready, and the name of its model."""

    port: int
    model: str

    def infer(self, files: Sequence[bytes]) -> tuple[int, dict[str, Any]]:
        """Send pictures as one request of HTTP protocol v2; return the status and the JSON."""
        content = b"".join(struct.pack("<I", len(file)) + file for file in files)
        image = {
            "name": IMAGE,
            "datatype": "BYTES",
            "shape": [len(files), 1],
            "parameters": {"binary_data_size": len(content)},
        }
        outputs = [{"name": name, "parameters": {"binary_data": False}} for name in OUTPUTS]
        head = json.dumps({"inputs": [image], "outputs": outputs}).encode()
        return self.ask("infer", head + content, head=len(head))

    def ask(self, path: str, body: bytes | None = None, *, head: int = 0) -> tuple[int, Any]:
        """Ask for a path of the model."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Inference-Header-Content-Length": str(head)} if head else {}
        method = "GET" if body is None else "POST"
        connection.request(method, f"/v2/models/{self.model}/{path}", body, headers)
        answer = connection.getresponse()
        record = json.loads(answer.read())
        connection.close()
        return answer.status, record


def home(work: Path) -> Path:
    """Make a folder with the binary, the stub of this Python, and what the stub imports.

    Files that must be executable are copied, because the cache holds them without that bit.

    Raises:
        WheelMissing: a wheel cannot be had here.
    """
    wheel, numpy = (folder(WHEELS[name]) for name in ("nvidia-pytriton==0.7.0", "numpy==1.26.4"))
    triton, backend = wheel / "pytriton" / "tritonserver", work / "backends" / "python"
    backend.mkdir(parents=True)
    stub = "triton_python_backend_stub"
    for source, target in (
        (triton / "bin" / "tritonserver", work / "tritonserver"),
        (triton / "python_backend_stubs" / PYTHON / stub, backend / stub),
    ):
        shutil.copyfile(source, target)
        target.chmod(0o755)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (backend / name).symlink_to(triton / "backends" / "python" / name)
    (work / "libs").symlink_to(wheel / "nvidia_pytriton.libs")
    # The stub ignores PYTHONPATH, but looks into the working folder first.
    for name in ("numpy", "numpy.libs"):
        (work / name).symlink_to(numpy / name)
    (work / "finedge").symlink_to(ROOT / "finedge")
    return work


@contextlib.contextmanager
def running(work: Path, repository: Path, model: str) -> Iterator[TritonServer]:
    """Run a model of a repository in the folder that `home` made, until the block ends."""
    port = _free_port()
    command = [
        "./tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={work / 'backends'}",
        "--model-control-mode=explicit",
        f"--load-model={model}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
        "--exit-timeout-secs=5",
    ]
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(work / "libs"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    log = work / "tritonserver.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=work, env=environment, stdout=file, stderr=file)
    server = TritonServer(port, model)
    try:
        _wait_ready(server, process, log)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _wait_ready(server: TritonServer, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            connection.request("GET", f"/v2/models/{server.model}/ready")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"tritonserver is not ready:\n{log.read_text(errors='replace')[-3000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
