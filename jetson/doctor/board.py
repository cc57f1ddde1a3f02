"""Which Jetson this is, and which JetPack its release of Jetson Linux (L4T) belongs to."""

from __future__ import annotations

import re
from pathlib import Path

from finedge.runtime.machine.sysfs import UNKNOWN, text

# From NVIDIA's JetPack archive, as quoted by dusty-nv/jetson-containers (l4t_version.py),
# rbonghi/jetson_stats (pull request 803), anduril/jetpack-nixos (pull request 541) and
# roboflow/inference (pull request 2531).
JETPACKS = {
    "36.2.0": "6.0 (preview)", "36.3.0": "6.0", "36.4.0": "6.1", "36.4.3": "6.2",
    "36.4.4": "6.2.1", "36.4.7": "6.2.1", "36.5.0": "6.2.2", "36.5.2": "6.2.3",
    "38.2.0": "7.0", "38.2.1": "7.0", "38.4.0": "7.1", "39.2.0": "7.2", "39.2.1": "7.2.1",
}  # fmt: skip
MAJOR = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7", "39": "7"}


def jetson(root: Path = Path("/")) -> dict[str, str] | None:
    """Return board, L4T release and JetPack version of a Jetson, or None on other machines.

    /etc/nv_tegra_release starts `# R36 (release), REVISION: 4.3, ...`, which is L4T 36.4.3.
    """
    line = text(root / "etc/nv_tegra_release")
    if not line:
        return None
    match = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", line)
    release = f"{match[1]}.{match[2]}" if match else UNKNOWN
    return {
        "board": text(root / "proc/device-tree/model") or UNKNOWN,
        "l4t": release,
        "jetpack": jetpack(release),
    }


def jetpack(l4t: str) -> str:
    """Return the JetPack of an L4T release, e.g. "6.2" for 36.4.3.

    Of a release that is not in the table it returns the major version, e.g. "6", or "unknown".
    """
    release = l4t if l4t.count(".") > 1 else f"{l4t}.0"
    return JETPACKS.get(release) or MAJOR.get(l4t.partition(".")[0], UNKNOWN)
