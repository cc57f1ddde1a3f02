"""Which Jetson this is, and which JetPack its release of Jetson Linux (L4T) belongs to."""

from __future__ import annotations

import re
from pathlib import Path

from finedge.runtime.machine.sysfs import UNKNOWN, text

# By NVIDIA's JetPack archive, as far as dusty-nv/jetson-containers (l4t_version.py), rbonghi/jetson_stats (pull request 803),
# anduril/jetpack-nixos (pull request 541) and roboflow/inference (pull request 2531) quote it.
JETPACKS = {
    "36.2.0": "6.0 (preview)", "36.3.0": "6.0", "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1", "36.4.7": "6.2.1", "36.5.0": "6.2.2", "36.5.2": "6.2.3",
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
    found = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", line)
    release = f"{found[1]}.{found[2]}" if found else UNKNOWN
    return {
        "board": text(root / "proc/device-tree/model") or UNKNOWN,
        "l4t": release,
        "jetpack": jetpack(release),
    }


def jetpack(l4t: str) -> str:
    """Return the JetPack of an L4T release: "6.2" of 36.4.3, "6" where only the major release is known, else "unknown"."""
    whole = l4t if l4t.count(".") > 1 else f"{l4t}.0"
    return JETPACKS.get(whole) or MAJOR.get(l4t.partition(".")[0], UNKNOWN)
