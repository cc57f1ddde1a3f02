"""A configuration of DeepStream's stock nvinfer, with the model copy it needs (`planar.py`).

    OUT/config_infer.txt  labels.txt  model.onnx  README.md

Keys: the Gst-nvinfer page of the DeepStream documentation. Paths in the file are relative to it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from finedge.bundle import Bundle
from finedge.errors import UsageError, nearest
from finedge.jetson.serve_config.folder import Request, ServeFolder, one_line
from finedge.jetson.serve_config.planar import FILES, PLANES, PROBABILITIES, planar, prepared
from finedge.preprocess import resized_shape
from finedge.spec import Preprocess

CONFIG, LABELS, MODEL, ENGINE = "config_infer.txt", "labels.txt", "model.onnx", "model.engine"
NETWORK_MODE = {"fp32": 0, "int8": 1, "fp16": 2}
# NvBufSurfTransform_Inter: 1 is bilinear. 3 is super-sampling on the GPU and 10 taps on the VIC,
# which is the nearest there is to a filter that averages.
FILTER = {"cv2-linear": 1}
AVERAGING = 3
TRTEXEC_PLUGIN = "libfinedge_plugin.so"  # in the folder of the library that DeepStream opens
EXAMPLE_SIZES = ((1920, 1080), (1280, 720))  # width and height of frames, in README.md


def folders(bundle: Bundle, request: Request) -> list[ServeFolder]:
    """Return the one folder of a bundle.

    Raises:
        UsageError: no such variant, or the plugin has no kernel for its attention.
        BundleError: the bundle lacks the variant.
        GateError: the copy gives other answers than the bundle's file.
    """
    variant = _variant(bundle, request.variant)
    if request.plugin:
        _check_attention(bundle, variant)
    model = planar(bundle, variant)
    with tempfile.TemporaryDirectory() as work:
        content = prepared(model, Path(work), variant=variant, plugin=request.plugin is not None)
    files = {
        MODEL: content,
        LABELS: labels(bundle),
        CONFIG: config(bundle, variant, request).encode(),
    }
    return [ServeFolder("", files, notes(bundle, variant), _readme(bundle, variant, request))]


def labels(bundle: Bundle) -> bytes:
    """Return labels.txt as nvinfer reads it.

    It is one line, with the labels of one output separated by `;`, which no label may hold.
    """
    names = (one_line(label.replace(";", ",")) for label in bundle.spec.labels)
    return (";".join(names) + "\n").encode()


def config(bundle: Bundle, variant: str, request: Request) -> str:
    """Return config_infer.txt."""
    spec, confidence = bundle.spec, bundle.confidence(variant)
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
        "classifier-threshold": confidence.reject if confidence else 0,
        **({"custom-lib-path": request.plugin} if request.plugin else {}),
    }
    return "[property]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())


def notes(bundle: Bundle, variant: str) -> tuple[str, ...]:
    """Return what nvinfer does differently from the bundle's own runtime."""
    texts = [
        *_geometry_notes(bundle.spec.preprocess),
        "Colours: the video converter turns the decoder's NV12 into RGB. "
        "Its pixels differ by a few grey levels from OpenCV's.",
    ]
    if not bundle.confidence(variant):
        texts.append(
            f"The bundle has no confidence for {variant}, so every frame gets a label. "
            "`finedge calibrate` adds it."
        )
    others = ", ".join(output.name for output in bundle.spec.outputs if output.role != "main")
    if others:
        texts.append(
            f"Only output {bundle.spec.main.name} is kept: "
            f"nvinfer would read {others} as labels of their own."
        )
    if any(";" in label for label in bundle.spec.labels):
        texts.append("A ; in a label became a comma.")
    return tuple(texts)


def source_region(preprocess: Preprocess, *, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, width and height of what the network sees of a frame of that size.

    They are even numbers of pixels, because NV12 has colour at half the resolution.
    """
    rows, columns = resized_shape(height, width, preprocess)
    region_width = 2 * round(preprocess.crop * width / columns / 2)
    region_height = 2 * round(preprocess.crop * height / rows / 2)
    left, top = 2 * round((width - region_width) / 4), 2 * round((height - region_height) / 4)
    return left, top, region_width, region_height


def _variant(bundle: Bundle, name: str) -> str:
    if name == "auto":
        return "fp16" if FILES["fp16"] in bundle.files else "fp32"
    if name not in FILES:
        raise UsageError(f"unknown variant '{name}'", expected=nearest(name, FILES))
    return name


def _check_attention(bundle: Bundle, variant: str) -> None:
    """Refuse the plugin for attention that it has no kernel for."""
    from finedge.graph.onnx_file import read_model
    from finedge.runtime.trt.build.graph import attentions
    from finedge.runtime.trt.plugin.launch import kernel_for

    for node in attentions(read_model(bundle.file(FILES[variant]))):
        kernel_for(d=node.d, dv=node.dv, shared=node.shared)


def _geometry_notes(preprocess: Preprocess) -> list[str]:
    if preprocess.frame is not None:
        height, width = preprocess.frame
        return [
            f"The graph resizes and crops by itself: give nvinfer frames of exactly "
            f"{width} x {height}. It squashes frames of any other size first."
        ]
    texts = []
    if preprocess.rule == "short-side" or preprocess.crop < preprocess.resize:
        texts.append(
            "nvinfer cannot crop: README.md shows the src-crop that does it. Without that, nvinfer "
            "squashes the whole frame, and no accuracy was measured for it."
        )
    if preprocess.method in FILTER:
        scaler = "its bilinear filter (1)"
    else:
        scaler = "super-sampling on the GPU, 10 taps on the VIC (3)"
    texts.append(
        f"The bundle was trained and measured with the resize {preprocess.method}. "
        f"nvinfer's scaling-filter is {scaler}. "
        "The pixels differ, and nobody measured the accuracy with them. "
        "`finedge export --frame HEIGHTxWIDTH` puts the resize into the graph instead."
    )
    return texts


def _readme(bundle: Bundle, variant: str, request: Request) -> str:
    parity = f"They were compared in ONNX Runtime: they are those of the bundle's {FILES[variant]}."
    choice = "nvinfer would build one by itself, but with types of its own choice."
    if variant == "int8":
        parity += " After that its unquantized part became float16, as in `finedge build`."
        choice += " Of an INT8 model without a calibration file it builds a float16 engine."
    return f"""# {bundle.name}, {variant}, for DeepStream

`{MODEL}` takes float32 planes 0..255 and gives probabilities. {parity}
finedge's own tests do not run it in DeepStream.

Build the engine on the board, once. {choice}

```
{_trtexec(bundle, request)}
```

Then use `nvinfer config-file-path={CONFIG}`.
{_crops(bundle.spec.preprocess)}"""


def _trtexec(bundle: Bundle, request: Request) -> str:
    """Return the command that builds the engine."""
    size = f"3x{bundle.spec.input.height}x{bundle.spec.input.width}"
    batches = {"min": 1, "opt": 1, "max": request.batch}
    shapes = [f"--{name}Shapes={PLANES}:{batch}x{size}" for name, batch in batches.items()]
    plugin = []
    if request.plugin:
        plugin.append(f"--dynamicPlugins={request.plugin.with_name(TRTEXEC_PLUGIN)}")
    files = [f"--onnx={MODEL}", f"--saveEngine={ENGINE}"]
    return " ".join(["trtexec", *files, "--stronglyTyped", *shapes, *plugin])


def _crops(preprocess: Preprocess) -> str:
    """Return the part of README.md about the crop; empty where the network sees whole frames."""
    whole = preprocess.rule == "squash" and preprocess.crop == preprocess.resize
    if preprocess.frame is not None or whole:
        return ""
    rows = ""
    for width, height in EXAMPLE_SIZES:
        region = source_region(preprocess, width=width, height=height)
        crop = ":".join(map(str, region))
        rows += f"nvvideoconvert src-crop={crop}    # frames of {width} x {height}\n"
    return f"""
The network sees the middle of a frame. Cut it out before nvstreammux, and give nvstreammux the
width and height of the cut:

```
{rows}```
"""
