"""The frozen blocks in ONNX Runtime: on a CPU it computes the maps faster than PyTorch.

It merges BatchNorm and ReLU6 into the convolutions. Up to stride 8 of EfficientNet-Lite0 at 160 px,
one thread of a busy EPYC takes 4.1 CPU ms an image, and PyTorch 8.8. For the whole backbone it is
7.4 and 13.3 (benchmarks/results/quick/cost.jsonl, `python -m benchmarks.quick_cost FILE`).
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import onnxruntime
import torch
from torch import Tensor, nn

from finedge.train.backbones import Backbone

log = logging.getLogger(__name__)

MapFunction = Callable[[Tensor], dict[str, Tensor]]
"""Normalised images float [B, 3, S, S] -> {block: float [B, C, h, w] on the CPU}."""

TOLERANCE = 1e-3  # of the largest value of a map; rounding differs by 1e-5


@torch.no_grad()
def map_function(
    backbone: Backbone, blocks: Sequence[str], *, size: int, device: torch.device
) -> MapFunction:
    """Return what computes the maps of `blocks`.

    That is ONNX Runtime on a CPU. It is PyTorch on other devices, and for a backbone that cannot be
    exported, or whose maps there are others.

    Args:
        backbone: in evaluation mode, on the device.
        blocks: in running order.
        size: side of the images.
        device: of the backbone.
    """
    part = BlockMaps(backbone, blocks)

    def by_torch(images: Tensor) -> dict[str, Tensor]:
        return dict(zip(blocks, (maps.cpu() for maps in part(images)), strict=True))

    if device.type != "cpu":
        return by_torch
    # Noise, so that a map of zeros does not agree by chance.
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        engine = onnx_runtime_maps(part, noise)
        difference = _difference(engine(noise), by_torch(noise))
    except Exception as error:  # of any operation that the exporter or the runtime lacks
        log.info("%s runs in PyTorch: %s", backbone.name, str(error).partition("\n")[0][:200])
        return by_torch
    if difference > TOLERANCE:
        log.info("%s runs in PyTorch: ONNX Runtime differs by %.2g", backbone.name, difference)
        return by_torch
    return engine


class BlockMaps(nn.Module):
    """The blocks up to the last one asked for, as a module that returns a tuple of maps."""

    def __init__(self, backbone: Backbone, blocks: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.blocks = backbone, tuple(blocks)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps of normalised images float [B, 3, S, S]."""
        _, maps = self.backbone.run(images, until=self.blocks[-1], taps=self.blocks)
        return tuple(maps[block] for block in self.blocks)


def onnx_runtime_maps(part: BlockMaps, images: Tensor) -> MapFunction:
    """Return what computes the maps in ONNX Runtime, traced with `images`; any batch size fits.

    Raises:
        Exception: whatever the exporter or ONNX Runtime raises for an operation that it lacks.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The exporter that traces takes 0.2 s for these blocks; the one with dynamo=True takes 4.
        torch.onnx.export(
            part,
            (images,),
            cast("Any", file),  # a file object, which the stub lacks
            dynamo=False,
            input_names=["images"],
            output_names=list(part.blocks),
            dynamic_axes={name: {0: "batch"} for name in ("images", *part.blocks)},
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    # The threads that decode need the cores between two batches.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )

    def run(batch: Tensor) -> dict[str, Tensor]:
        maps = session.run(None, {"images": batch.contiguous().numpy()})
        return {
            block: torch.from_numpy(array) for block, array in zip(part.blocks, maps, strict=True)
        }

    return run


def _difference(maps: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest difference of a map, as a share of its largest value."""
    shares = [
        float((maps[block] - value).abs().max() / value.abs().max().clamp(min=1e-6))
        for block, value in expected.items()
    ]
    return max(shares)
