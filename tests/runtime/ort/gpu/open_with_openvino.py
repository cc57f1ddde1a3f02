"""Opens a file of a bundle with OpenVINO's provider, in a process that has it.

`python -m tests.runtime.ort.gpu.open_with_openvino BUNDLE FILE BATCH.npy` writes `logits.npy`
beside the batch, and prints the session's precision and versions as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from finedge.bundle import Bundle
from finedge.graph.onnx_file import read_onnx
from finedge.runtime.backend import SessionOptions
from finedge.runtime.ort.gpu.opening import Opening
from finedge.runtime.ort.gpu.providers import Provider

PROVIDER = Provider("OpenVINOExecutionProvider", "openvino", "")


def main(path: str, file: str, batch: str) -> None:
    bundle, variant = Bundle.load(path), file.split(".")[1]
    opening = Opening(PROVIDER, bundle, variant, SessionOptions(threads=1), "this CPU")
    session = opening.open(read_onnx(bundle.file(file)), file=file)
    logits = session(np.load(batch))[bundle.spec.main.name]
    np.save(Path(batch).with_name("logits.npy"), logits)
    print(json.dumps([session.info.precision, dict(session.info.versions)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
