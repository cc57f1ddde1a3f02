"""How often OpenVINO answers as ONNX Runtime does, on a bundle's labelled test split.

    python benchmarks/cpu/reader_agreement.py BUNDLE [--data DIR]

Both run the same file on the same prepared frames. One row for each variant: the share of equal
top-1 answers, the accuracy of both, and McNemar's p-value between them. Rows are in
benchmarks/results/readers/BUNDLE.json. A row of the same digest and backend versions is not made
again. It is meant for a CPU with VNNI: without it, OpenVINO multiplies INT8 files in float.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tyro.conf import Positional

from finedge.bundle import Bundle
from finedge.data import Item
from finedge.files import write_text
from finedge.image import read_image
from finedge.measure import mcnemar, wilson95
from finedge.preprocess import preprocess
from finedge.runtime.backend import Session, SessionOptions, get_backend
from finedge.runtime.evaluate.labelled import SplitOptions, evaluated_images
from finedge.runtime.telemetry.environment import environment

RESULTS = Path(__file__).resolve().parents[1] / "results/readers"
READERS = ("onnxruntime", "openvino")
VARIANTS = ("int8", "fp32")


def main(
    bundle: Positional[Path],
    *,
    data: Path | None = None,
    variants: tuple[str, ...] = VARIANTS,
    results: Path = RESULTS,
) -> None:
    """Compare both readers on the test split; write and print the rows."""
    loaded = Bundle.load(bundle)
    path = results / f"{loaded.name}.json"
    rows: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    items = evaluated_images(loaded, SplitOptions(data=data)).items
    for variant in variants:
        sessions = {
            name: get_backend(name, options=SessionOptions(threads=1)).open(loaded, variant=variant)
            for name in READERS
        }
        identity = {"digest": loaded.digest(), "runs": {n: runs(s) for n, s in sessions.items()}}
        if identity.items() <= rows.get(variant, {}).items():
            continue
        answers = top1(sessions, items, bundle=loaded)
        compared = compare(answers, np.array([item.label for item in items]))
        rows[variant] = {**identity, **compared, "environment": environment()}
        write_text(path, json.dumps(rows, indent=1) + "\n")
    json.dump(rows, sys.stdout, indent=1)


def runs(session: Session) -> dict[str, Any]:
    """Return what a session is."""
    info = session.info
    return {"file": info.file, "precision": info.precision, "versions": dict(info.versions)}


def top1(
    sessions: Mapping[str, Session], items: tuple[Item, ...], *, bundle: Bundle
) -> dict[str, np.ndarray]:
    """Return the first label of each image by reader, int [n]."""
    first: dict[str, list[int]] = {name: [] for name in sessions}
    for item in items:
        batch = preprocess(read_image(item.path), bundle.spec.preprocess)[None]
        for name, session in sessions.items():
            first[name].append(int(session(batch)[bundle.spec.main.name].argmax()))
    return {name: np.array(labels) for name, labels in first.items()}


def compare(answers: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """Return the agreement and the accuracies of two readers."""
    first, second = (answers[name] for name in READERS)
    right, also_right = first == labels, second == labels
    equal = int((first == second).sum())
    return {
        "images": len(labels),
        "agreement": round(equal / len(labels), 5),
        "agreement_wilson95": [round(bound, 5) for bound in wilson95(equal, len(labels))],
        "top1": {name: round(float((answers[name] == labels).mean()), 5) for name in READERS},
        "mcnemar_p": round(
            mcnemar(int((right & ~also_right).sum()), int((also_right & ~right).sum())), 4
        ),
    }


if __name__ == "__main__":
    tyro.cli(main)
