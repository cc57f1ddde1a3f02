"""kill -9 at random moments.

Each file is complete, old or new, and the next start removes the rest.

The writer makes the same calls as export, calibrate, build and deploy, on small files: it does in a
second what they do in an hour.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finedge.bundle import Bundle
from finedge.errors import BundleError
from finedge.runtime.trt.build.key import EngineKey
from finedge.runtime.trt.build.store import EngineStore

KEY = EngineKey("0" * 64, "", "tensorrt", "10.3.0", "Orin", "8.7", "fp32", (1, 1, 8), ())
WRITER = """
import json, shutil, sys
from pathlib import Path
from finedge.bundle import Bundle
from finedge.files import new_folder, write_text
from finedge.runtime.trt.build.store import EngineStore
from finedge.spec import Input, Preprocess, Spec
from tests.fuzz.test_kill import KEY, content

root, turn = Path(sys.argv[1]), int(sys.argv[2])
spec = Spec("plain", "none", ("a", "b"), Preprocess(8, 8), Input(8, 8))
while True:
    turn += 1
    record = {"turn": turn}
    files, quantized = {"model.fp32.onnx": content(turn)}, {"model.int8.onnx": content(turn)}
    Bundle.create(root / "b.finedge", spec, files=files, provenance={"export": record})
    Bundle.load(root / "current").extend("calibrate", quantized, record)
    EngineStore.of(Bundle.load(root / "b.finedge")).keep(KEY, content(turn), {"turn": turn})
    write_text(root / "state.json", json.dumps({"turn": turn, "filling": "x" * 50_000}))
    with new_folder(root / "deployed") as work:
        shutil.copytree(root / "b.finedge", work, dirs_exist_ok=True)
    if turn == int(sys.argv[2]) + 1:
        print("ready", flush=True)
"""


def content(turn: int) -> bytes:
    """Return the bytes of a turn: each eight of them hold its number."""
    return turn.to_bytes(8, "little") * 20_000


def turn_of(data: bytes) -> int:
    """Return the turn that wrote these bytes; they must be complete."""
    turn = int.from_bytes(data[:8], "little")
    assert data == content(turn), "bytes of two turns, or cut short"
    return turn


@pytest.mark.parametrize("moments", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_kill_leaves_the_old_or_the_new(tmp_path: Path, moments: int) -> None:
    (tmp_path / "current").symlink_to("b.finedge")
    chance, turn = random.Random(0), 0
    for _ in range(moments):
        killed(tmp_path, turn, after_s=chance.uniform(0, 0.3))
        turn = look(tmp_path)


def killed(root: Path, turn: int, *, after_s: float) -> None:
    """Let the writer go on from a turn, and kill it some time after its first round."""
    command = [sys.executable, "-c", WRITER, str(root), str(turn)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(after_s)
        os.kill(writer.pid, signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL


def look(root: Path) -> int:
    """Hold everything that a killed writer left against what it may be; return the last turn."""
    bundle = Bundle.load(root / "current")
    turn = turn_of(bundle.file("model.fp32.onnx").read_bytes())
    assert bundle.provenance["export"] == {"turn": turn}
    calibrated = bundle.provenance.get("calibrate")
    assert ("model.int8.onnx" in bundle.files) == (calibrated is not None)
    if calibrated:
        assert turn_of(bundle.file("model.int8.onnx").read_bytes()) == calibrated["turn"] == turn
    _look_at_engine(bundle)
    assert json.loads((root / "state.json").read_text())["turn"] in (turn - 1, turn)
    deployed = Bundle.load(root / "deployed")
    assert turn_of(deployed.file("model.fp32.onnx").read_bytes()) in (turn - 1, turn)
    assert (root / "current").is_symlink()
    assert sorted(p.name for p in root.iterdir()) == [
        "b.finedge",
        "current",
        "deployed",
        "state.json",
    ], "leftovers"
    return turn


def _look_at_engine(bundle: Bundle) -> None:
    """An engine is whole, or refused by its digest and kept anew."""
    found = EngineStore.of(bundle).find(KEY)
    if found is None:
        return
    try:
        assert turn_of(found.read()) == found.record["turn"]
    except BundleError:
        EngineStore.of(bundle).keep(KEY, b"again", {})
        again = EngineStore.of(bundle).find(KEY)
        assert again is not None
        assert again.read() == b"again"
