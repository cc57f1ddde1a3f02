"""`finedge calibrate`: INT8 files from training images, and confidence from held-out images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes, Positional

from finedge.calib.options import ConfidenceOptions, Int8Options, QatOptions
from finedge.calib.search.options import SearchOptions
from finedge.data import NewImages

DEFAULT_INT8 = Int8Options()
NO_SEARCH = SearchOptions()
NO_QAT = QatOptions()
DEFAULT_CONFIDENCE = ConfidenceOptions()


def calibrate(
    bundle: Positional[Path],
    *,
    data: Path,
    int8: OmitArgPrefixes[Int8Options] = DEFAULT_INT8,
    search: OmitArgPrefixes[SearchOptions] = NO_SEARCH,
    qat: OmitArgPrefixes[QatOptions] = NO_QAT,
    confidence: OmitArgPrefixes[ConfidenceOptions] = DEFAULT_CONFIDENCE,
    new_images: NewImages = "ignore",
) -> dict[str, Any]:
    """Add the INT8 variants to a bundle, or replace them, and fit the confidence of each variant.

    Examples:
        >>> calibrate(Path("birds.finedge"), data=Path("birds"))["int8_layers"]
        {'model.int8.onnx': 54, 'model.int8.cpu.onnx': 54}

    Args:
        bundle: the bundle's folder.
        data: the images the model was trained on. INT8 takes the training split, the confidence
            the validation split; the test split is never used.
        int8: how the INT8 files are made.
        search: which layers stay in float.
        qat: quantization-aware training before the calibration.
        confidence: how the confidence is fitted.
        new_images: where images go that the stored split does not know: nowhere (ignore), or into
            train, val or test.
    """
    from finedge.calib.calibrate import calibrate_bundle
    from finedge.calib.compose import CalibrationOptions

    options = CalibrationOptions(int8, search, qat)
    return calibrate_bundle(
        bundle, data=data, options=options, confidence=confidence, new_images=new_images
    )
