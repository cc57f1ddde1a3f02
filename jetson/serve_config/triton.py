"""A model repository for Triton Inference Server.

It holds the bundle's ONNX file, the TensorRT engines that were built in the bundle's folder, and
the bundle whole, which takes image files (`triton_whole.py`).

    OUT/birds_fp32/config.pbtxt  labels.txt  README.md  1/model.onnx
    OUT/birds_int8_plan/config.pbtxt  labels.txt  README.md  1/sm87.plan
    OUT/birds_fp32_images/config.pbtxt  labels.txt  README.md  1/model.py  1/bundle.finedge/

Fields and their numbers: protobuf/model_config.proto of triton-inference-server/common. Mean, std
and layout are part of the graph, so the input is the uint8 picture. The graph cannot hold the
resize and the confidence. They are in `parameters`, where the client reads them.
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
from finedge.jetson.serve_config.folder import Request, ServeFolder, one_line
from finedge.jetson.serve_config.pbtxt import EnumName, text
from finedge.jetson.serve_config.triton_whole import LABELS, whole_folder
from finedge.runtime.trt.build.store import StoredEngine

log = logging.getLogger(__name__)

# variant -> the file that ONNX Runtime serves, and the kind of instance. The INT8 file is made for
# the CPU: CUDA would not fuse it.
FILES = {
    "fp32": (FLOAT_FILE, "KIND_AUTO"),
    "fp16": (HALF_FILE, "KIND_GPU"),
    "int8": (CPU_FILE, "KIND_CPU"),
}
# Triton's backend passes on only some of ONNX Runtime's session settings. The one for exact
# products is not among them.
SATURATES = (
    "On an x86 CPU without VNNI this INT8 file gives wrong answers. ONNX Runtime's products "
    "saturate there, and Triton cannot set session.x64quantprecision. `finedge doctor` on that "
    "machine says whether they saturate; if they do, serve fp32."
)
AUTOLOAD = "libfinedge_plugin_autoload.so"


def folders(bundle: Bundle, request: Request) -> list[ServeFolder]:
    """Return the model folders: of the ONNX file, of each precision with engines, and of the whole.

    Raises:
        UsageError: no such variant, or a plugin is given (an engine's key says whether it needs
            one).
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
            "%d engine(s) of other files than %s holds now are left out (fix: finedge build)",
            stale,
            bundle.path,
        )
    return [
        _onnx(bundle, variant, file=bundle.file(file), kind=kind, batch=request.batch),
        *(
            _plan(bundle, precision, engines=group, batch=request.batch)
            for precision, group in engines.items()
        ),
        whole_folder(
            bundle, model_name(bundle, f"{variant}_images"), variant=variant, batch=request.batch
        ),
    ]


def _onnx(bundle: Bundle, variant: str, *, file: Path, kind: str, batch: int) -> ServeFolder:
    name = model_name(bundle, variant)
    config = {
        **_config(bundle, variant, name=name, batch=batch),
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "instance_group": [{"kind": EnumName(kind)}],
    }
    notes = (
        "The backend needs ONNX Runtime 1.18 or newer (opset 20).",
        *([SATURATES] if variant == "int8" else []),
    )
    return _folder(bundle, name, config=config, files={"1/model.onnx": file}, notes=notes)


def _plan(
    bundle: Bundle, precision: str, *, engines: list[StoredEngine], batch: int
) -> ServeFolder:
    """Return the folder of one precision: an engine for each compute capability."""
    name = model_name(bundle, f"{precision}_plan")
    variant = precision.split("-")[0]
    max_batch = min(batch, *(engine.key.profile[2] for engine in engines))
    plans = {engine.key.compute_capability: _plan_name(engine) for engine in engines}
    config = {
        **_config(bundle, variant, name=name, batch=max_batch),
        "backend": "tensorrt",
        "default_model_filename": next(iter(plans.values())),
        "cc_model_filenames": [{"key": key, "value": file} for key, file in plans.items()],
        "instance_group": [{"kind": EnumName("KIND_GPU")}],
    }
    files = {f"1/{_plan_name(engine)}": engine.read() for engine in engines}
    return _folder(bundle, name, config=config, files=files, notes=_plan_notes(engines))


def _plan_name(engine: StoredEngine) -> str:
    return f"sm{engine.key.compute_capability.replace('.', '')}.plan"


def _plan_notes(engines: list[StoredEngine]) -> tuple[str, ...]:
    versions = ", ".join(sorted({engine.key.version for engine in engines}))
    notes = [
        "An engine runs only on the GPU that it was built on, with the same TensorRT "
        f"({versions}). Use the server release that has it."
    ]
    if any(engine.key.plugin for engine in engines):
        notes.append(
            "The engine needs finedge's plugin: start `tritonserver` with "
            f"LD_PRELOAD=.../{AUTOLOAD} (jetson/plugin/README.md). That was not tried in a server."
        )
    return tuple(notes)


def _config(bundle: Bundle, variant: str, *, name: str, batch: int) -> dict[str, Any]:
    """Return what every model of a bundle has in its ModelConfig."""
    spec = bundle.spec
    picture = {
        "name": spec.input.name,
        "data_type": EnumName("TYPE_UINT8"),
        "format": EnumName("FORMAT_NHWC"),
        "dims": [spec.input.height, spec.input.width, 3],
    }
    outputs = [
        {
            "name": output.name,
            "data_type": EnumName("TYPE_FP32"),
            "dims": [len(spec.labels)],
            "label_filename": LABELS,
        }
        for output in spec.outputs
    ]
    parameters = _parameters(bundle, variant)
    return {
        "name": name,
        "max_batch_size": batch,
        "input": [picture],
        "output": outputs,
        "dynamic_batching": {},
        "parameters": [
            {"key": key, "value": {"string_value": value}} for key, value in parameters.items()
        ],
    }


def _parameters(bundle: Bundle, variant: str) -> dict[str, str]:
    """Return what the client needs and the graph cannot hold."""
    parameters = {
        "finedge.main_output": bundle.spec.main.name,
        "finedge.preprocess": json.dumps(asdict(bundle.spec.preprocess)),
    }
    confidence = bundle.confidence(variant)
    if confidence:
        parameters["finedge.temperature"] = f"{confidence.temperature}"
        parameters["finedge.reject"] = f"{confidence.reject}"
    return parameters


def _folder(
    bundle: Bundle,
    name: str,
    *,
    config: dict[str, Any],
    files: Mapping[str, bytes | Path],
    notes: tuple[str, ...],
) -> ServeFolder:
    labels = "".join(f"{one_line(label)}\n" for label in bundle.spec.labels)
    readme = f"""# {name}

{bundle.name} for Triton Inference Server. finedge's own tests do not run it in a server.

```
tritonserver --model-repository=THE_FOLDER_ABOVE
```
"""
    files = {"config.pbtxt": text(config).encode(), LABELS: labels.encode(), **files}
    return ServeFolder(name, files, (_input_note(bundle), _scores_note(bundle), *notes), readme)


def _input_note(bundle: Bundle) -> str:
    spec, preprocess = bundle.spec, bundle.spec.preprocess
    size = f"uint8 RGB [{spec.input.height}, {spec.input.width}, 3]"
    if preprocess.frame is not None:
        return f"The client sends whole frames, {size}. The graph resizes and crops them."
    return (
        f"Triton resizes nothing: the client sends {size}, prepared by this rule: "
        f"{preprocess.describe()}. Mean and std are already in the graph. "
        "finedge.preprocess.preprocess is that rule in Python."
    )


def _scores_note(bundle: Bundle) -> str:
    main = bundle.spec.main
    return (
        f"The values of output {main.name} are {main.kind}, not probabilities. Divide them by "
        "finedge.temperature, if `parameters` has that, and take the softmax. "
        "Answer unknown below finedge.reject."
    )


def model_name(bundle: Bundle, suffix: str) -> str:
    """Return the model's name, which is its folder's name too: letters, digits, - and _ only."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", bundle.name).strip("_")
    return f"{name}_{suffix.replace('-', '_')}"
