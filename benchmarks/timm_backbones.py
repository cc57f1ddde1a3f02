"""Which networks of timm train, export and quantize here, each from random weights.

    python benchmarks/timm_backbones.py run WORK
    python benchmarks/timm_backbones.py table

Every network is trained for one epoch of rendered birds at 64 px as the model `plain`, exported
(each ONNX file is compared with PyTorch), and calibrated with 16 images. A step that fails is a
result: its error is in the row. Whether the INT8 file of a *trained* network is accurate is another
question.

Rows are in benchmarks/results/timm_backbones/NAME.json. A row that is there is not made again.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import timm
import torch
import tyro
from tyro.conf import Positional

from finedge.files import write_text
from finedge.runtime.machine.cpu import cpu_name

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/timm_backbones"
NETS = (
    "resnet18",
    "resnet50",
    "seresnet18",
    "resnest14d",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "efficientnet_b0",
    "tf_efficientnetv2_b0",
    "lcnet_050",
    "ghostnet_100",
    "regnetx_002",
    "regnety_004",
    "densenet121",
    "vgg11_bn",
    "repvgg_a0",
    "mobileone_s0",
    "convnext_atto",
    "dla34",
    "rexnet_100",
    "hgnetv2_b0",
    "mobilevit_xxs",
    "poolformer_s12",
    "fastvit_t8",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
    "xception41",
)
SIZE = 64
TAIL = 600  # characters of an error that a row keeps
TRAIN = (
    "train --model plain --backbone timm:{net} --weights none --size {size} "
    "--epochs 1 --batch-size 8 --lr 0.005 --device cpu --data {data} --out {run}"
)
STEPS = {
    "train": TRAIN,
    "export": "export {run} --out {bundle}",
    "calibrate": "calibrate {bundle} --data {data} --images 16 --decision-images 16",
}


def run(work: Positional[Path], *, only: tuple[str, ...] = ()) -> None:
    """Make the rows that are not there yet; WORK keeps the birds, the runs and the bundles."""
    data = work / "birds"
    if not data.is_dir():
        _finedge(f"data render {data} --classes 4 --train 8 --val 4 --test 4 --size 96")
    for net in only or NETS:
        path = RESULTS / f"{net}.json"
        if not path.is_file():
            write_text(path, json.dumps(_row(net, work=work, data=data), indent=1) + "\n")
            print(path.read_text())


def table() -> None:
    """Print the rows as a table."""
    print("| network | parameters | train | export | calibrate |\n|---|--:|---|---|---|")
    for net in NETS:
        path = RESULTS / f"{net}.json"
        row = json.loads(path.read_text()) if path.is_file() else {"steps": {}}
        cells = [row["steps"].get(step, {}).get("outcome", "not run") for step in STEPS]
        parameters = row.get("parameters")
        million = f"{parameters / 1e6:.1f} M" if parameters else ""
        print(f"| {net} | {million} | {' | '.join(cells)} |")


def _row(net: str, *, work: Path, data: Path) -> dict[str, Any]:
    places = {"run": work / net, "bundle": work / f"{net}.finedge", "data": data}
    steps: dict[str, Any] = {}
    for step, template in STEPS.items():
        words = template.format(net=net, size=SIZE, **places)
        start = time.perf_counter()
        code, out, error = _finedge(words)
        steps[step] = {"outcome": "yes" if code == 0 else f"no (exit {code})"}
        steps[step]["seconds"] = round(time.perf_counter() - start, 1)
        if code:
            steps[step]["error"] = error[-TAIL:].replace(str(work), "WORK")
            break
        steps[step]["kept"] = _kept(step, json.loads(out))
    return {
        "net": net,
        "command": f"python benchmarks/timm_backbones.py run WORK --only {net}",
        "parameters": sum(p.numel() for p in timm.create_model(net).parameters()),
        "steps": steps,
        "cpu": cpu_name(),
        "versions": {
            "python": platform.python_version(),
            "timm": timm.__version__,
            "torch": torch.__version__,
        },
        "commit": _git("rev-parse", "--short", "HEAD"),
    }


def _kept(step: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a result that a row keeps."""
    if step == "train":
        return {"loss": result["loss"], "n": result["n"]}
    if step == "export":
        return {}
    return {key: result[key] for key in ("decision", "int8_layers", "float_layers")}


def _finedge(words: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "finedge", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"run": run, "table": table})
