"""What the rows of a GPU run say, in sentences. Every number in them is computed from the rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.shapes import GRIDS
from benchmarks.gpu.tables import latest, latest_shapes
from finedge.runtime.trt.plugin.image import image_digest

Row = dict[str, Any]
# Where the chain was to take `GOAL` times as long as the kernel: grid, channels, one map, batch.
TARGET, GOAL = ("448 L4<-L2", 512, True, 32), 1.5
MACHINE_CODE = ("kernel, machine code", "kernel, nvcc")  # the second in the first runs
ONES = "no one two three four five six seven eight nine ten eleven twelve"


def machine(rows: Sequence[Row]) -> str:
    """The GPU, the versions and the rates of the latest run."""
    facts = {row["what"]: row for row in latest(rows, part="facts", key="what")}
    versions, smi, gpu, peaks = (facts[what] for what in ("versions", "nvidia-smi", "gpu", "peaks"))
    clocks, cudnn = peaks["clocks"], gpu["cudnn"]
    return (
        f"{gpu['name']}, driver {smi['driver_version']}, CUDA {versions['cuda']}, torch "
        f"{versions['torch'].split('+')[0]}, cuDNN {cudnn // 10000}.{cudnn % 10000 // 100}, "
        f"{gpu['processors']} multiprocessors at {clocks['sm_mhz']} MHz, memory at "
        f"{clocks['memory_mhz']} MHz. {peaks['flops'] / 1e12:.0f} TFLOP/s in an 8192 x 8192 "
        f"float16 product, {peaks['bytes_per_s'] / 1e12:.1f} TB/s in a copy. "
        f"Commits: {', '.join(_commits(rows))}."
    )


def numbers(rows: Sequence[Row]) -> str:
    """How exact the kernel is, and what the sanitizer found."""
    seen = latest(rows, part="numbers", key="cases")
    total = next(row for row in seen if row["what"] == "total")
    error = max(row["max_error"] for row in seen if row["what"] == "kernel")
    failed, cases = total["failures"], total["cases"]
    verdict = f"failed {failed} of {cases} cases" if failed else f"passed all {cases} cases"
    tools = latest(rows, part="sanitizer", key="tool")
    bad = [row["tool"] for row in tools if not row["pass"]]
    names = ", ".join(row["tool"] for row in tools)
    return (
        f"The shipped PTX, compiled by the driver, {verdict}: errors of at most {_short(error)} of "
        "the largest value, three equal runs each, nothing written outside. compute-sanitizer "
        f"found {'something with ' + ', '.join(bad) if bad else 'nothing'} with {names} "
        f"({tools[-1]['problems']} problems each)."
    )


def target(rows: Sequence[Row]) -> str:
    """The kernel against the chain, and against the fastest of all."""
    shapes = latest_shapes(rows)
    ratio = _ratio(shapes[TARGET])
    queries, keys = GRIDS[TARGET[0]]
    faster = [row for row in shapes.values() if _ratio(row) > 1]
    gain = 100 * (max(map(_ratio, faster), default=1) - 1)
    grids = sorted({"{} x {}".format(*GRIDS[row["grid"]]) for row in faster})
    heads = sorted({row["channels"] for row in faster})
    where = f", at {' and '.join(grids)} with d = {_either(heads)}, by at most {gain:.0f} %"
    fastest = sum(_is_fastest(row["us"]) for row in shapes.values())
    return (
        f"The target was that the chain takes {GOAL} times as long as the kernel at {queries} x "
        f"{keys}, {TARGET[1]}, one map, batch {TARGET[3]}. It takes {ratio:.2f} times as long. Of "
        f"{len(shapes)} shapes the kernel beats the chain on "
        f"{len(faster)}{where if faster else ''}. "
        f"It is the fastest of all on {_count(fastest)} shape{'s' * (fastest > 1)}. "
        f"{_machine_code(shapes.values())}"
    )


def splits(rows: Sequence[Row]) -> str:
    """The worst choice of a number of splits."""
    seen = latest(rows, part="splits", key="us")
    timed = [row for row in seen if str(row["planned"]) in row["us"]]
    worst = max(timed, key=lambda row: row["us"][str(row["planned"])] / row["us"][str(row["best"])])
    planned, best = (worst["us"][str(worst[key])] for key in ("planned", "best"))
    queries, keys = GRIDS[worst["grid"]]
    return (
        f"The planned number of splits costs up to {planned / best:.1f} times: {queries} x {keys}, "
        f"d = {worst['channels']}, batch {worst['batch']} takes {planned:.1f} us with the planned "
        f"{worst['planned']} and {best:.1f} us with {worst['best']}."
    )


def session(rows: Sequence[Row]) -> str:
    """What the session's code did on real CUDA in the latest run."""
    tests = {row["test"]: row for row in latest(rows, part="lane", key="test")}
    failed = [name for name, row in tests.items() if not row["pass"]]
    verdict = f"failed: {', '.join(failed)}" if failed else "all passed"
    return (
        f"With the kernel as the engine's only layer, {_count(len(tests))} tests ({verdict}): "
        f"graphs of {_count(tests['answers']['graphs'])} batch sizes, copied and mapped buffers, "
        f"{tests['replays']['replays']:,} equal replays, a capture that an allocation spoils (the "
        "lane warns and runs without a graph, the next one captures), captures beside another "
        "thread's allocations, out of memory as its typed error, and equal free memory over "
        f"{tests['opened_and_closed']['opened']} lanes."
    )


def bindings(rows: Sequence[Row]) -> str:
    """The Python plugin in a stream capture."""
    seen = latest(rows, part="bindings", key="test")
    captured = [row for row in seen if row["test"] == "captured"]
    versions = sorted({row["version"] for row in seen if "version" in row})
    cost = statistics.median(row["us"] for row in seen if "us" in row)
    failed = [row for row in captured if not row["pass"]]
    verdict = "failed" if failed else f"{captured[-1]['replays']:,} equal replays without Python"
    return (
        f"Through NVIDIA's bindings of TensorRT {' and '.join(versions)}: a plugin's whole life "
        f"inside a stream capture, {verdict}. Recording the launches takes {cost:.0f} us in Python "
        "on this CPU."
    )


def training_cell(rows: Sequence[Row]) -> str:
    """Whether training and evaluation ran on a GPU, in any run."""
    commands = [row for row in rows if row["part"] == "commands" and row.get("pass")]
    passed = {row["command"].split()[0] for row in commands}
    return f"✓ one {_gpu(rows)}" if {"train", "evaluate"} <= passed else "not run on hardware"


def kernel_cell(rows: Sequence[Row]) -> str:
    """Whether the kernel is right, and as fast as it was to be."""
    total = next(row for row in latest(rows, part="numbers", key="cases") if row["what"] == "total")
    tools = [row["pass"] for row in latest(rows, part="sanitizer", key="tool")]
    is_right = not total["failures"] and all(tools)
    is_fast = _ratio(latest_shapes(rows)[TARGET]) >= GOAL
    words = f"{'right' if is_right else 'wrong'} and {'fast' if is_fast else 'slow'}"
    versions = next(r for r in latest(rows, part="facts", key="what") if r["what"] == "versions")
    if versions.get("kernel") != image_digest():
        return f"before: [{words}](docs/gpu.md)"
    return f"{'✓ ' * is_right}[{words}](docs/gpu.md) on an {_gpu(rows)}"


def _commits(rows: Sequence[Row]) -> list[str]:
    return [row["commit"] for row in rows if row["part"] == "facts" and "commit" in row]


def _gpu(rows: Sequence[Row]) -> str:
    """The name without the maker's: H200, H100."""
    facts = latest(rows, part="facts", key="compute_capability")
    words = str(facts[-1]["name"]).split()
    return next(word for word in words if word != "NVIDIA")


def _ratio(row: Row) -> float:
    return float(row["us"]["chain"] / row["us"]["kernel"])


def _is_fastest(us: dict[str, float]) -> bool:
    others = [time for name, time in us.items() if not name.startswith("kernel")]
    return us["kernel"] < min(others)


def _machine_code(shapes: Any) -> str:
    """Machine code for this GPU against the PTX that the driver compiles."""
    shares = [
        row["us"][name] / row["us"]["kernel"] - 1
        for row in shapes
        for name in MACHINE_CODE
        if name in row["us"]
    ]
    if not shares:
        return ""
    low, high = (100 * bound for bound in (min(shares), max(shares)))
    return f"Machine code for sm_90 takes {_more(low)} to {_more(high)} time than the PTX."


def _more(percent: float) -> str:
    return f"{abs(percent):.0f} % {'less' if percent < 0 else 'more'}"


def _short(number: float) -> str:
    return f"{number:.1e}".replace("e-0", "e-")


def _count(number: int) -> str:
    words = ONES.split()
    return words[number] if number < len(words) else f"{number}"


def _either(values: Sequence[int]) -> str:
    return " or ".join(map(str, values))
