"""The golden frame on the engine of this very device, the first time it is opened here: an engine that answers otherwise is not used."""

from __future__ import annotations

import logging
import platform

from finedge.bundle import Bundle
from finedge.errors import GateError
from finedge.golden import read_golden
from finedge.runtime.agreement import Stage, golden_stages
from finedge.runtime.backend import Session
from finedge.runtime.trt.build.store import Found
from finedge.runtime.trt.cuda import Gpu

log = logging.getLogger(__name__)

RECORD = "golden"


def replay_once(session: Session, bundle: Bundle, *, engine: Found, variant: str, gpu: Gpu) -> None:
    """Replay the golden frame, unless the engine's record says that it passed on this device with this driver.

    Args:
        session: the engine's session.
        bundle: what it was built from.
        engine: the engine; the result is written into its record.
        variant: fp32, fp16 or int8: which limit holds.
        gpu: the device.

    Raises:
        GateError: an output is further than the limit from what the engine's file answered when it was made; the stages are in `result`.
    """
    device = {"device": gpu.name, "driver": gpu.driver, "machine": platform.node()}
    known = engine.record.get(RECORD, {})
    if known.get("pass") and all(known.get(k) == v for k, v in device.items()):
        return
    stages = list(golden_stages(session, bundle, golden=read_golden(bundle), variant=variant))
    bad = [s for s in stages if s["pass"] is False]
    result = {**device, "stages": stages, "pass": not bad}
    try:
        engine.noted(RECORD, result)
    except OSError as error:  # an engine in a bundle that cannot be written
        log.warning(
            "%s cannot be written (%s): the golden frame is replayed at every start",
            engine.path.with_suffix(".json"),
            error.strerror,
        )
    if bad:
        raise GateError(
            f"{session.info.file} answers the golden frame otherwise than {session.info.source}: {'; '.join(map(_said, bad))}",
            expected="every output within its limit: this engine is not used",
            fix="compare with an engine built with --attention decomposed, or --precision int8-fp32",
            result=result,
        )
    log.info(
        "%s: golden frame replayed on %s: %s",
        session.info.file,
        gpu.name,
        "; ".join(map(_said, stages)),
    )


def _said(stage: Stage) -> str:
    if stage["pass"] is None:
        return f"{stage['name']} unchecked ({stage['skipped']})"
    return f"{stage['name']} " + (
        str(stage["note"])
        if "note" in stage
        else f"max |delta| {stage['max_abs']:.3g}, limit {stage['limit']:.3g}"
    )
