"""How much of this CPU's measured INT8 peak an INT8 row reaches."""

from __future__ import annotations

from typing import Any

from finedge.runtime.backend import HasExits
from finedge.runtime.benchmark.lane import BenchmarkLane
from finedge.runtime.benchmark.modes import CAMERA
from finedge.runtime.ort.backend import NAME as ONNX_RUNTIME
from finedge.runtime.ort.int8_peak import int8_peak


def peak_record(
    lane: BenchmarkLane, *, infer_ms: float | None, threads: int | None
) -> dict[str, Any] | None:
    """Return `gmacs_per_s` and `share`, or None where there is no such number.

    `share` is of the fastest INT8 product that ONNX Runtime reaches here with as many threads, with
    the multiply-accumulates that `finedge export` counted. Those that stay in float count too.
    Only INT8 rows of ONNX Runtime on the CPU have it.

    Args:
        lane: the row.
        infer_ms: the median of the inference call, of a whole batch.
        threads: CPU threads; None is the physical cores this process may use.
    """
    classifier = lane.classifier
    macs = classifier.bundle.export.attention_cost.macs.get("int8")
    is_int8 = classifier.variant == "int8" and lane.mode.name != CAMERA
    is_on_cpu = classifier.session.info.backend == ONNX_RUNTIME
    # The MACs of one query are known, and neither of a part of the model nor of two looks.
    is_whole = not isinstance(classifier.session, HasExits) and classifier.second_look is None
    if not (macs and infer_ms and is_int8 and is_on_cpu and is_whole):
        return None
    per_second = 1e3 * macs * lane.mode.batch / infer_ms
    share = per_second / int8_peak(threads)
    return {"gmacs_per_s": round(per_second / 1e9, 3), "share": round(share, 4)}
