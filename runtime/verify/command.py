"""`finedge verify`: a bundle is compared with its golden frame and its run, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tyro.conf import Positional

from finedge.bundle import VARIANTS, Bundle
from finedge.errors import GateError
from finedge.options import comma_list
from finedge.progress import watched
from finedge.runtime.agreement import Stage
from finedge.runtime.backend import get_backend
from finedge.runtime.verify.stages import all_stages
from finedge.runtime.verify.verification import Verification

ADVICE = {
    "preprocess": "compare the versions of Pillow and OpenCV with those of the export",
    "tap": "look at this tap first; export again",
    "logits": (
        "export or calibrate again; with another runtime version compare its number with the limit"
    ),
    "top-1": "calibrate with more images or with another method",
}


def verify(
    bundle: Positional[Path],
    *,
    data: Path | None = None,
    run: Path | None = None,
    images: int = 16,
    backend: str = "auto",
    variants: str = "",
) -> dict[str, Any]:
    """Compare preprocessing, taps, logits and top-1 with the golden frame and with the run.

    Where a stage differs by more than its limit, the exit code is 5 and the error names the first
    such stage.

        finedge verify birds.finedge --data photos --run runs/birds

    Args:
        bundle: the bundle's folder.
        data: a folder of real images; without it only the golden frame is compared.
        run: the run that the bundle was exported from; PyTorch runs it on the real images.
        images: how many real images, chosen by a fixed seed.
        backend: what runs the bundle; auto is the first backend that runs on this machine.
        variants: fp32, fp16, int8 in a comma list; default: all that the bundle holds.
    """
    loaded = Bundle.load(bundle)
    names = comma_list(variants, kind="variant", known=VARIANTS) or loaded.variants()
    verification = Verification(loaded, get_backend(backend), data, run, images, names)
    return _passed(list(watched(all_stages(verification), "verifying")))


def _passed(stages: list[Stage]) -> dict[str, Any]:
    """Return the result of a verification; `GateError` names the first stage that failed."""
    failed = [stage for stage in stages if stage["pass"] is False]
    result = {"stages": stages, "pass": not failed}
    if not failed:
        return result
    first = failed[0]
    raise GateError(
        f"stage '{first['name']}' diverges: {_measured(first)}",
        expected=_allowed(first),
        fix=next(fix for start, fix in ADVICE.items() if first["name"].startswith(start)),
        result=result,
    )


def _measured(stage: Stage) -> str:
    if "note" in stage:
        return str(stage["note"])
    if "agreement" in stage:
        return f"{stage['agreement']:.1%} of {stage['n']} images agree"
    return f"max |delta| {stage['max_abs']:.3g}"


def _allowed(stage: Stage) -> str:
    if "agreement" in stage:
        return f"at least {stage['limit']:.0%}"
    return f"at most {stage['limit']:.3g}"
