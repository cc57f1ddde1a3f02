"""`finedge benchmark`: accuracy and latency of every variant of one or more bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes, Positional

from finedge.bundle import Bundle
from finedge.errors import InvalidBenchmark, UsageError
from finedge.files import writable_folder, write_bytes, write_text
from finedge.runtime.benchmark.options import Claims, FrameOptions, MeasurementOptions
from finedge.runtime.early_exit.record import titled
from finedge.runtime.evaluate.labelled import SplitOptions
from finedge.runtime.find.options import FindOptions
from finedge.runtime.look_twice.options import ONE_LOOK, LookOptions

DEFAULT_RUN = MeasurementOptions()
TEST_SPLIT = SplitOptions()
DEFAULT_FRAMES = FrameOptions()
FIND_NOTHING = FindOptions()
NO_CLAIMS = Claims()
PRINTED = ("schema", "made", "environment", "rows", "comparisons", "choices")  # of report.json


def benchmark(
    bundles: Positional[tuple[Path, ...]],
    *,
    run: OmitArgPrefixes[MeasurementOptions] = DEFAULT_RUN,
    dataset: OmitArgPrefixes[SplitOptions] = TEST_SPLIT,
    frames: OmitArgPrefixes[FrameOptions] = DEFAULT_FRAMES,
    finding: OmitArgPrefixes[FindOptions] = FIND_NOTHING,
    look: OmitArgPrefixes[LookOptions] = ONE_LOOK,
    claims: OmitArgPrefixes[Claims] = NO_CLAIMS,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure every variant in turn, block by block; write report.json and samples.json.gz.

    The headline is the wall time from a decoded frame in host memory to the top-k on the host. Exit
    code 6 when a row is INVALID, and 1 where --require-faster is not met. The report is written all
    the same. It also says what `--variant auto` runs on this machine, and why.

        finedge benchmark plain.finedge cnl.finedge --data photos --out compared

    Args:
        bundles: one or more bundles; each further one is also compared with the first.
        run: what is run, and for how long.
        dataset: labelled images. Without any, scenes are rendered and no accuracy is measured.
        frames: the frames that are classified.
        finding: for camera mode: rows with a finder, beside those without.
        look: a second look at a part of each frame, in all rows.
        claims: what the numbers have to support; a row that does not is INVALID.
        out: folder of the report; default: the first bundle.
    """
    from finedge.runtime.benchmark.measure import BenchmarkOptions, measure
    from finedge.runtime.benchmark.results import report_content, samples
    from finedge.runtime.benchmark.speeds import check_faster, int8_verdicts

    options = BenchmarkOptions(run, dataset, frames, finding, look)
    opened = load_bundles(bundles)
    folder = writable_folder(out or bundles[0], option="--out")
    measured = measure(opened, options)
    content = report_content(measured, claims=claims, options=options)
    write_bytes(folder / "samples.json.gz", samples(measured))
    write_text(folder / "report.json", json.dumps(content, indent=1))
    printed = {name: content[name] for name in PRINTED}
    result = _valid({**printed, "report": str((folder / "report.json").resolve())})
    if claims.require_faster:
        check_faster(int8_verdicts(measured.lanes), result)
    return result


def load_bundles(paths: tuple[Path, ...]) -> dict[str, Bundle]:
    """Open bundles by name; the parent folder tells two of one name apart.

    Raises:
        UsageError: no bundle, or one twice.
    """
    if not paths:
        raise UsageError(
            "no bundle was given",
            expected="one or more bundles",
            fix="finedge benchmark birds.finedge --data DIR",
        )
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError(
            f"a bundle is given twice: {', '.join(map(str, paths))}", expected="different bundles"
        )
    bundles = [Bundle.load(path) for path in paths]
    names = [bundle.name for bundle in bundles]
    return {
        name if names.count(name) == 1 else f"{bundle.path.resolve().parent.name}/{name}": bundle
        for name, bundle in zip(names, bundles, strict=True)
    }


def _valid(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result; `InvalidBenchmark` names the rows that are INVALID."""
    invalid = [row for row in result["rows"] if not row["valid"]]
    if not invalid:
        return result
    reasons = "\n".join(
        f"  {titled(row['bundle'], row['early_exit'])} {row['variant']} {row['mode']}: "
        f"{'; '.join(row['invalid_reasons'])}"
        for row in invalid
    )
    raise InvalidBenchmark(
        f"{len(invalid)} of {len(result['rows'])} rows are INVALID:\n{reasons}",
        fix="measure longer, on an idle and cool machine",
        result=result,
    )
