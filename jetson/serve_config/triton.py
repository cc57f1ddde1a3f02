"""A model repository for Triton Inference Server: the bundle's ONNX file, and each TensorRT engine that lies beside the bundle.

    OUT/birds_fp32/config.pbtxt  labels.txt  README.md  1/model.onnx
    OUT/birds_int8_plan/config.pbtxt  labels.txt  README.md  1/sm87.plan

Fields and their numbers: protobuf/model_config.proto of triton-inference-server/common. Mean, std and layout are part of the graph, so
the input is the uint8 picture. What the graph cannot hold, the resize and the confidence, is in `parameters` for the client to read.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finedge.bundle import CPU_FILE, FLOAT_FILE, HALF_FILE, Bundle
from finedge.errors import UsageError, nearest
from finedge.jetson.serve_config.engines import fresh_engines
from finedge.jetson.serve_config.folder import Folder, Request, one_line
from finedge.jetson.serve_config.pbtxt import Name, text
from finedge.runtime.trt.build.store import StoredEngine

log = logging.getLogger(__name__)

# variant -> the file ONNX Runtime serves and the kind of instance: the INT8 file is made for the CPU, CUDA would not fuse it.
FILES = {
    "fp32": (FLOAT_FILE, "KIND_AUTO"),
    "fp16": (HALF_FILE, "KIND_GPU"),
    "int8": (CPU_FILE, "KIND_CPU"),
}
LABELS = "labels.txt"
# Triton's backend hands on only some of ONNX Runtime's session settings, and the one for exact
# products is not among them.
SATURATES = (
    "on an x86 CPU without VNNI this INT8 file gives wrong answers: ONNX Runtime's products saturate there, and Triton cannot set "
    "session.x64quantprecision; `finedge doctor` on that machine says whether it is so: serve fp32 then"
)
AUTOLOAD = "libfinedge_plugin_autoload.so"


def folders(bundle: Bundle, request: Request) -> list[Folder]:
    """Return the model folders of a repository: one of an ONNX file, one of each precision there are TensorRT engines of.

    Raises:
        UsageError: no such variant, or a plugin is asked for: the engine says whether it needs one.
        BundleError: the bundle lacks the variant.
    """
    variant = "fp32" if request.variant == "auto" else request.variant
    if variant not in FILES:
        raise UsageError(f"unknown variant '{variant}'", expected=nearest(variant, FILES))
    if request.plugin is not None:
        raise UsageError(
            "--plugin is for deepstream",
            fix=f"finedge build --attention plugin, then tritonserver with LD_PRELOAD={AUTOLOAD}",
        )
    file, kind = FILES[variant]
    engines, stale = fresh_engines(bundle)
    if stale:
        log.warning(
            "%d engine(s) of other files than %s holds now are left out (to do: finedge build)",
            stale,
            bundle.path,
        )
    return [
        _onnx(bundle, variant, file=bundle.file(file), kind=kind, batch=request.batch),
        *(
            _plan(bundle, precision, engines=found, batch=request.batch)
            for precision, found in engines.items()
        ),
    ]


def _onnx(bundle: Bundle, variant: str, *, file: Path, kind: str, batch: int) -> Folder:
    name = model_name(bundle, variant)
    config = {
        **_config(bundle, variant, name=name, batch=batch),
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "instance_group": [{"kind": Name(kind)}],
    }
    notes = (
        "the backend needs ONNX Runtime 1.18 or newer (opset 20)",
        *([SATURATES] if variant == "int8" else []),
    )
    return _folder(bundle, name, config=config, files={"1/model.onnx": file}, notes=notes)


def _plan(bundle: Bundle, precision: str, *, engines: list[StoredEngine], batch: int) -> Folder:
    """Return the folder of one precision: an engine for each compute capability."""
    name = model_name(bundle, f"{precision}_plan")
    plans = {
        e.key.compute_capability: f"sm{e.key.compute_capability.replace('.', '')}.plan"
        for e in engines
    }
    config = {
        **_config(
            bundle,
            precision.split("-")[0],
            name=name,
            batch=min(batch, *(e.key.profile[2] for e in engines)),
        ),
        "backend": "tensorrt",
        "default_model_filename": next(iter(plans.values())),
        "cc_model_filenames": [{"key": k, "value": v} for k, v in plans.items()],
        "instance_group": [{"kind": Name("KIND_GPU")}],
    }
    versions = ", ".join(sorted({e.key.version for e in engines}))
    notes = [
        f"an engine runs only on the GPU it was built on, with the same TensorRT ({versions}): take the server release that has it"
    ]
    if any(e.key.plugin for e in engines):
        notes.append(
            f"it was built with finedge's plugin: LD_PRELOAD=.../{AUTOLOAD} tritonserver ... (jetson/plugin/README.md; not tried in a server)"
        )
    files = {f"1/{plans[e.key.compute_capability]}": e.read() for e in engines}
    return _folder(bundle, name, config=config, files=files, notes=tuple(notes))


def _config(bundle: Bundle, variant: str, *, name: str, batch: int) -> dict[str, Any]:
    """Return what every model of a bundle has in its ModelConfig."""
    spec = bundle.spec
    picture = {
        "name": spec.input.name,
        "data_type": Name("TYPE_UINT8"),
        "format": Name("FORMAT_NHWC"),
        "dims": [spec.input.height, spec.input.width, 3],
    }
    outputs = [
        {
            "name": o.name,
            "data_type": Name("TYPE_FP32"),
            "dims": [len(spec.labels)],
            "label_filename": LABELS,
        }
        for o in spec.outputs
    ]
    fitted = bundle.confidence(variant)
    facts = {
        "finedge.main_output": spec.main.name,
        "finedge.preprocess": json.dumps(asdict(spec.preprocess)),
    }
    if fitted:
        facts |= {
            "finedge.temperature": f"{fitted.temperature}",
            "finedge.reject": f"{fitted.reject}",
        }
    return {
        "name": name,
        "max_batch_size": batch,
        "input": [picture],
        "output": outputs,
        "dynamic_batching": {},
        "parameters": [{"key": k, "value": {"string_value": v}} for k, v in facts.items()],
    }


def _folder(
    bundle: Bundle,
    name: str,
    *,
    config: dict[str, Any],
    files: Mapping[str, bytes | Path],
    notes: tuple[str, ...],
) -> Folder:
    labels = "".join(f"{one_line(label)}\n" for label in bundle.spec.labels)
    readme = (
        f"# {name}\n\n{bundle.name} for Triton Inference Server. Not run in a server by finedge's own tests.\n\n"
        f"```\ntritonserver --model-repository=THE_FOLDER_ABOVE\n```\n"
    )
    return Folder(
        name,
        {"config.pbtxt": text(config).encode(), LABELS: labels.encode(), **files},
        (*_notes(bundle), *notes),
        readme,
    )


def _notes(bundle: Bundle) -> tuple[str, ...]:
    spec, how = bundle.spec, bundle.spec.preprocess
    size = f"uint8 RGB [{spec.input.height}, {spec.input.width}, 3]"
    if how.frame is not None:
        return (
            f"the client sends whole frames, {size}; the graph resizes and crops them",
            _scores_note(bundle),
        )
    note = f"Triton resizes nothing: the client sends {size}, prepared by this rule: {how.describe()}; mean and std are already in the graph"
    return (f"{note} (finedge.preprocess.preprocess is that rule in Python)", _scores_note(bundle))


def _scores_note(bundle: Bundle) -> str:
    main = bundle.spec.main
    return (
        f"output {main.name} is {main.kind}, not probabilities: divide by finedge.temperature of `parameters` (where it is there), take the softmax, "
        "and answer unknown below finedge.reject"
    )


def model_name(bundle: Bundle, suffix: str) -> str:
    """Return the model's name, which must be its folder's: letters, digits, - and _ only."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", bundle.name).strip("_") + f"_{suffix.replace('-', '_')}"
