"""A configuration of DeepStream's stock nvinfer element, with the model copy it needs (`planar.py`).

    OUT/config_infer.txt  labels.txt  model.onnx  README.md

Keys: the Gst-nvinfer page of the DeepStream documentation. Paths in the file are relative to it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from finedge.bundle import Bundle
from finedge.errors import UsageError, nearest
from finedge.jetson.serve_config.folder import Folder, Request, one_line
from finedge.jetson.serve_config.planar import FILES, PLANES, PROBABILITIES, planar, prepared
from finedge.preprocess import resized_shape
from finedge.spec import Preprocess

CONFIG, LABELS, MODEL, ENGINE = "config_infer.txt", "labels.txt", "model.onnx", "model.engine"
NETWORK_MODE = {"fp32": 0, "int8": 1, "fp16": 2}
# NvBufSurfTransform_Inter: 1 bilinear; 3 GPU super-sampling, VIC 10 taps, the nearest there is to a filter that averages.
FILTER = {"cv2-linear": 1}
AVERAGING = 3
TRTEXEC_PLUGIN = "libfinedge_plugin.so"  # lies beside the library that DeepStream opens
SHOWN = ((1920, 1080), (1280, 720))


def folders(bundle: Bundle, request: Request) -> list[Folder]:
    """Return the one folder of a bundle.

    Raises:
        UsageError: no such variant, or the plugin has no kernel for its attention.
        BundleError: the bundle lacks it.
        GateError: the copy does not answer as the bundle's file.
    """
    variant = _variant(bundle, request.variant)
    if request.plugin:
        _check_heads(bundle, variant)
    model = planar(bundle, variant)
    with tempfile.TemporaryDirectory() as work:
        content = prepared(model, Path(work), variant=variant, plugin=request.plugin is not None)
    files = {
        MODEL: content,
        LABELS: labels(bundle),
        CONFIG: config(bundle, variant, request).encode(),
    }
    return [Folder("", files, notes(bundle, variant), _readme(bundle, variant, request))]


def labels(bundle: Bundle) -> bytes:
    """Return labels.txt as nvinfer reads it: one line, the labels of one output separated by `;` (which no label may hold)."""
    return (
        ";".join(one_line(label.replace(";", ",")) for label in bundle.spec.labels) + "\n"
    ).encode()


def config(bundle: Bundle, variant: str, request: Request) -> str:
    """Return config_infer.txt."""
    spec, fitted = bundle.spec, bundle.confidence(variant)
    keys = {
        "gpu-id": 0,
        "onnx-file": MODEL,
        "model-engine-file": ENGINE,
        "labelfile-path": LABELS,
        "batch-size": request.batch,
        "network-mode": NETWORK_MODE[variant],
        "network-type": 1,
        "process-mode": 1,
        "gie-unique-id": 1,
        "infer-dims": f"3;{spec.input.height};{spec.input.width}",
        "network-input-order": 0,
        "model-color-format": 0,
        "net-scale-factor": 1,
        "offsets": "0;0;0",
        "maintain-aspect-ratio": 0,
        "scaling-filter": FILTER.get(spec.preprocess.method, AVERAGING),
        "output-blob-names": PROBABILITIES,
        "classifier-threshold": fitted.reject if fitted else 0,
        **({"custom-lib-path": request.plugin} if request.plugin else {}),
    }
    return "[property]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())


def notes(bundle: Bundle, variant: str) -> tuple[str, ...]:
    """Return what nvinfer does otherwise than the bundle's own runtime."""
    found = [
        *_geometry(bundle.spec.preprocess),
        "colours: the decoder's NV12 becomes RGB on the video converter, a few grey levels from what OpenCV makes of it",
    ]
    if not bundle.confidence(variant):
        found.append(
            f"the bundle has no confidence for {variant}: every frame gets a label (to do: finedge calibrate)"
        )
    others = ", ".join(o.name for o in bundle.spec.outputs if o.role != "main")
    if others:
        found.append(
            f"only output {bundle.spec.main.name} is kept: nvinfer would read {others} as labels of their own"
        )
    if any(";" in label for label in bundle.spec.labels):
        found.append("a ; in a label became a comma")
    return tuple(found)


def source_region(how: Preprocess, *, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, width, height of what the network sees of a frame of that size, in even pixels (NV12 has half the colours)."""
    rows, columns = resized_shape(height, width, how)
    sizes = (how.crop * width / columns, how.crop * height / rows)
    w, h = (2 * round(s / 2) for s in sizes)
    return 2 * round((width - w) / 4), 2 * round((height - h) / 4), w, h


def _variant(bundle: Bundle, asked: str) -> str:
    if asked == "auto":
        return "fp16" if FILES["fp16"] in bundle.files else "fp32"
    if asked not in FILES:
        raise UsageError(f"unknown variant '{asked}'", expected=nearest(asked, FILES))
    return asked


def _check_heads(bundle: Bundle, variant: str) -> None:
    """Refuse the plugin for attention that it has no kernel for."""
    from finedge.graph.onnx_file import read_model
    from finedge.runtime.trt.build.graph import attentions
    from finedge.runtime.trt.plugin.launch import kernel_for

    for node in attentions(read_model(bundle.file(FILES[variant]))):
        kernel_for(d=node.d, dv=node.dv, shared=node.shared)


def _geometry(how: Preprocess) -> list[str]:
    if how.frame is not None:
        height, width = how.frame
        return [
            f"the graph resizes and crops by itself: give nvinfer frames of exactly {width} x {height}, any other size it would squash first"
        ]
    found = []
    if how.rule == "short-side" or how.crop < how.resize:
        found.append(
            "nvinfer cannot crop: without the src-crop that README.md shows it squashes the whole frame, which no number of the report speaks of"
        )
    scaler = (
        "its bilinear filter (1)"
        if how.method in FILTER
        else "super-sampling on the GPU, 10 taps on the VIC (3)"
    )
    found.append(
        f"resize: the bundle was trained and measured with {how.method}, scaling-filter is {scaler}: other pixels, and an accuracy that nobody measured. "
        "finedge export --frame HEIGHTxWIDTH puts the resize into the graph instead"
    )
    return found


def _readme(bundle: Bundle, variant: str, request: Request) -> str:
    height, width = bundle.spec.input.height, bundle.spec.input.width
    shapes = " ".join(
        f"--{k}Shapes={PLANES}:{b}x3x{height}x{width}"
        for k, b in (("min", 1), ("opt", 1), ("max", request.batch))
    )
    plugin = (
        f" --dynamicPlugins={request.plugin.with_name(TRTEXEC_PLUGIN)}" if request.plugin else ""
    )
    return (
        f"# {bundle.name}, {variant}, for DeepStream\n\n"
        f"`{MODEL}` takes float32 planes 0..255 and gives probabilities; in ONNX Runtime it answers as the bundle's {FILES[variant]}"
        f"{' before its unquantized part was set to float16, as finedge build does' if variant == 'int8' else ''}. Not run in DeepStream by "
        f"finedge's own tests.\n\nBuild the engine on the board, once. nvinfer would build one by itself, but with types of its own choice"
        f"{', and of an INT8 model without a calibration file a float16 one' if variant == 'int8' else ''}:\n\n"
        f"```\ntrtexec --onnx={MODEL} --saveEngine={ENGINE} --stronglyTyped {shapes}{plugin}\n```\n\n"
        f"Then `nvinfer config-file-path={CONFIG}`.\n{_crops(bundle.spec.preprocess)}"
    )


def _crops(how: Preprocess) -> str:
    if how.frame is not None or (how.rule == "squash" and how.crop == how.resize):
        return ""
    rows = "".join(
        f"nvvideoconvert src-crop={':'.join(map(str, source_region(how, width=w, height=h)))}    # frames of {w} x {h}\n"
        for w, h in SHOWN
    )
    return f"\nThe network sees the middle of a frame. Cut it out before nvstreammux, and give that a square of the same side:\n\n```\n{rows}```\n"
