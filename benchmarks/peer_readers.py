"""The readers that `benchmarks/peers.py` compares: each opens a bundle, and answers one frame.

The bare ones get nothing but the thread count and one query at a time: what a user would write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.runtime.backend import SessionOptions, get_backend
from finedge.runtime.classifier import Classifier
from finedge.runtime.machine.packages import is_installed
from finedge.runtime.openvino.library import core, openvino_version
from finedge.runtime.ort.backend import FILES

Batch = NDArray[np.uint8]  # [1, H, W, 3]
Scores = NDArray[np.float32]  # [1, classes]
Answer = Callable[[Batch], Scores]
AUTO = "finedge auto"


@dataclass(frozen=True)
class Peer:
    """An open reader.

    Attributes:
        name: its name in the rows, e.g. "openvino int8 f32".
        variant: what it runs: fp32 or int8.
        versions: of the libraries that compute.
        answer: takes a batch of one frame, and returns the main output.
    """

    name: str
    variant: str
    versions: Mapping[str, str]
    answer: Answer


def open_peers(bundle: Bundle, *, threads: int, with_torch: bool) -> Iterator[Peer]:
    """Open every other reader that is installed, with all variants that the bundle holds."""
    variants = [variant for variant in ("fp32", "int8") if variant in bundle.variants()]
    for variant in variants:
        yield _session(bundle, variant, "onnxruntime", threads=threads)
        yield _bare_onnxruntime(bundle, variant, threads=threads)
        if is_installed("openvino"):
            yield _session(bundle, variant, "openvino", threads=threads)
            for hint in ("f32", "bf16"):
                yield _bare_openvino(bundle, variant, hint, threads=threads)
    if with_torch:
        yield _compiled_torch(bundle, threads=threads)


def open_auto(bundle: Bundle, *, threads: int) -> Peer:
    """Return what `finedge classify` would run: `auto` variant and backend."""
    classifier = Classifier.open(bundle, threads=threads, spin=threads > 1)
    info = classifier.session.info
    name = f"{AUTO}: {info.backend} {classifier.variant}"
    return Peer(name, classifier.variant, info.versions, classifier.scores)


def _session(bundle: Bundle, variant: str, backend: str, *, threads: int) -> Peer:
    options = SessionOptions(threads, spin=threads > 1)
    session = get_backend(backend, options=options).open(bundle, variant=variant)
    main = bundle.spec.main.name
    name = f"finedge {backend} {variant}"
    return Peer(name, variant, session.info.versions, lambda batch: session(batch)[main])


def _bare_onnxruntime(bundle: Bundle, variant: str, *, threads: int) -> Peer:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(_path(bundle, variant)), settings, providers=["CPUExecutionProvider"]
    )
    outputs, name = [bundle.spec.main.name], bundle.spec.input.name

    def answer(batch: Batch) -> Scores:
        scores: Scores = session.run(outputs, {name: batch})[0]
        return scores

    versions = {"onnxruntime": onnxruntime.__version__}
    return Peer(f"onnxruntime {variant}", variant, versions, answer)


def _bare_openvino(bundle: Bundle, variant: str, hint: str, *, threads: int) -> Peer:
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": hint,
    }
    model = core().compile_model(str(_path(bundle, variant)), "CPU", settings)
    request, main = model.create_infer_request(), bundle.spec.main.name

    def answer(batch: Batch) -> Scores:
        request.infer([batch])
        scores: Scores = request.get_tensor(main).data.copy()
        return scores

    versions = {"openvino": openvino_version()}
    return Peer(f"openvino {variant} {hint}", variant, versions, answer)


def _compiled_torch(bundle: Bundle, *, threads: int) -> Peer:
    """Compile the run that the bundle was made of: FP32, weights frozen."""
    import torch
    from torch._inductor import config

    from finedge.export.to_onnx import FramesToOutputs
    from finedge.train.run import load_run

    torch.set_num_threads(threads)
    config.freezing = True
    loaded = load_run(bundle.training.run)
    graph = FramesToOutputs(loaded.model, loaded.spec.preprocess).eval()
    graph = graph.to(memory_format=torch.channels_last)
    index = [output.name for output in loaded.model.outputs].index(bundle.spec.main.name)
    compiled = torch.compile(graph)
    answer = partial(_run_torch, compiled, index)
    return Peer("torch.compile fp32", "fp32", {"torch": torch.__version__}, answer)


def _run_torch(compiled: Any, index: int, batch: Batch) -> Scores:
    import torch

    with torch.no_grad():
        scores: Scores = compiled(torch.from_numpy(batch))[index].numpy()
    return scores


def _path(bundle: Bundle, variant: str) -> str:
    return str(bundle.file(next(f for f in FILES[variant] if f in bundle.files)))
