"""The machine: GPU, driver, versions, commit, and its rates in a large product and a large copy."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator

import torch

from benchmarks.gpu.carried import commit_of_checkout, digest_of_sources
from benchmarks.gpu.device import NO_GPU, clocks, milliseconds, open_driver
from benchmarks.gpu.part import Request, Row, Skip
from finedge.runtime.trt.plugin.image import image_digest

QUERY = (
    "name,driver_version,vbios_version,power.limit,clocks.max.sm,clocks.max.mem,"
    "ecc.mode.current,memory.total,compute_mode"
)
SIDE = 8192  # of the product
COPIED = 1 << 31  # bytes: many times the L2


def rows(request: Request) -> Iterator[Row]:
    yield {
        "what": "versions",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "commit": commit_of_checkout() or request.carried.commit or "unknown",
        "kernel": image_digest(),
        "carried": request.carried.commit,
        "carried_fits": request.carried.digest == digest_of_sources(),
    }
    if not torch.cuda.is_available():
        raise Skip(NO_GPU)
    yield {"what": "nvidia-smi", **_smi()}
    facts, driver = torch.cuda.get_device_properties(0), open_driver(request.library)
    yield {
        "what": "gpu",
        "name": facts.name,
        "compute_capability": f"{facts.major}.{facts.minor}",
        "processors": facts.multi_processor_count,
        "memory_gib": round(facts.total_memory / 2**30, 1),
        "l2_mib": round(facts.L2_cache_size / 2**20, 1),
        "driver_cuda": driver.version,
        "image": driver.kernels().image.path.name,
        "cudnn": torch.backends.cudnn.version(),
        "tools": {
            name: shutil.which(name) is not None for name in ("nvcc", "ncu", "compute-sanitizer")
        },
    }
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.float16) for _ in range(2))
    product = sorted(milliseconds(lambda: a @ b) for _ in range(20))[10]
    source, target = (torch.empty(COPIED, dtype=torch.uint8, device="cuda") for _ in range(2))
    copy = sorted(milliseconds(lambda: target.copy_(source)) for _ in range(20))[10]
    yield {
        "what": "peaks",
        "flops": 2 * SIDE**3 / product * 1e3,
        "bytes_per_s": 2 * COPIED / copy * 1e3,
        "clocks": clocks(),
    }


def _smi() -> Row:
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"reason": str(error)}
    values = [word.strip() for word in done.stdout.split(",")]
    return dict(zip(QUERY.split(","), values, strict=False))
