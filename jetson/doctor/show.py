"""The facts as a page for people: two columns that stay readable at 80, then the problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finedge.tables import one_line, styled

Rows = Iterator[tuple[str, str]]
INT8 = {
    "exact": "runs the files as they are: products are exact",
    "saturating": "cuts the weights to 7 bits: products would saturate on this CPU",
}


def show(result: dict[str, Any]) -> RenderableType:
    """Return the facts by subject, then each problem with what to do."""
    subjects = {
        "machine": _machine(result),
        "power and heat": _power(result),
        "gpu": _gpu(result),
        "pictures": _pictures(result),
        "backends": _backends(result),
    }
    width = max(map(len, ("", *result["backends"]))) + 2
    parts = [part for name, rows in subjects.items() for part in _subject(name, rows, width=width)]
    for problem in result["problems"]:
        parts.append(Text.assemble("\n", ("problem", "bold red"), "  ", styled(problem["what"])))
        parts.append(one_line(f"  to do: {problem['fix']}"))  # a command stays in one piece
    count = len(result["problems"])
    return Group(*parts, f"\n{count or 'no'} problem{'s' * (count != 1)} found")


def _subject(name: str, rows: Rows, *, width: int) -> list[RenderableType]:
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=width, no_wrap=True)
    table.add_column()
    for key, value in rows:
        table.add_row(f"  {key}", styled(value))
    return [styled(name, "bold"), table]


def _machine(facts: dict[str, Any]) -> Rows:
    machine, board = facts["environment"], facts["jetson"]
    memory, cores = machine["memory_mib"], machine["cores"]
    if board:
        yield "board", f"{board['board']}, JetPack {board['jetpack']} (L4T {board['l4t']})"
    yield "platform", machine["platform"]
    count = cores if isinstance(cores, str) else len(cores)
    flags = " ".join(machine["cpu_flags"]) or "no flags of interest"
    yield "cpu", f"{machine['cpu']}, {count} cores; {flags}"
    yield "int8", f"ONNX Runtime: {INT8.get(machine['int8_products'], machine['int8_products'])}"
    yield (
        "memory",
        memory
        if isinstance(memory, str)
        else f"{memory['available']} of {memory['total']} MiB available",
    )
    yield (
        "swap",
        ", ".join(f"{size} MiB {name}" for name, size in facts["swap_mib"].items()) or "none",
    )
    yield "disk", f"{facts['disk_free_mib']} MiB free"
    yield (
        "python",
        ", ".join([machine["python"], *(f"{n} {v}" for n, v in machine["versions"].items())]),
    )


def _power(facts: dict[str, Any]) -> Rows:
    now, machine = facts["telemetry"], facts["environment"]
    clocks = {"cpu": now["cpu_mhz"], "gpu": now["gpu_mhz"], "memory": now["memory_mhz"]}
    warm = [(c, name) for name, c in now["temperatures_c"].items() if c is not None]
    locked = {None: "", True: ", locked", False: ", not locked"}[now["clocks_locked"]]
    if facts["jetson"]:
        modes = ", ".join(facts["power_modes"].values()) or "unknown"
        yield "mode", f"{now['power_mode'] or 'unknown'} (of {modes})"
    yield (
        "clocks",
        (", ".join(f"{n} {v:.0f} MHz" for n, v in clocks.items() if v is not None) or "unknown")
        + locked
        + f"; governor {machine['governor']}",
    )
    yield (
        "power",
        "unknown" if now["power_w"] is None else f"{now['power_w']:.1f} W ({now['power_from']})",
    )
    yield "hottest", f"{max(warm)[0]:.0f} C ({max(warm)[1]})" if warm else "unknown"
    yield (
        "throttled",
        {None: "unknown", True: ", ".join(now["throttled_by"]), False: "no"}[now["throttled"]]
        + _history(now["throttle_events"]),
    )


def _history(events: dict[str, int]) -> str:
    told = [f"{name} {count}" for name, count in events.items() if count]
    return f"; since boot: {', '.join(told)}" if told else ""


def _gpu(facts: dict[str, Any]) -> Rows:
    gpu, library, image = facts["gpu"], facts["tensorrt"], facts["plugin_image"]
    found = [
        f"{name} {library[name]['version']}"
        for name in library
        if name != "system" and library[name]["version"]
    ]
    yield (
        "device",
        f"{gpu['name']}, compute capability {gpu['compute_capability']}, {gpu['memory_mib']} MiB"
        if gpu
        else facts["why_no_gpu"] or "none",
    )
    yield "driver", facts["nvidia_driver"] or "none"
    yield (
        "cuda",
        ", ".join(
            [*([f"driver's {gpu['driver']}"] if gpu else []), f"toolkit {facts['cuda'] or 'none'}"]
        ),
    )
    system = (
        f"; the system's Python has {library['system']['version']}" if library["system"] else ""
    )
    yield "tensorrt", (", ".join(found) or "none") + system
    yield "plugin image", image["file"] or image["why_not"]


def _pictures(facts: dict[str, Any]) -> Rows:
    vision, streams = facts["opencv"], facts["gstreamer"]
    features = [name for name in ("ffmpeg", "gstreamer", "v4l2") if vision.get(name)]
    elements = [name for name, there in streams["elements"].items() if there]
    tools = [
        name
        for name, there in (
            ("gst-launch-1.0", streams["gst_launch"]),
            ("python3-gi", streams["gi"]),
        )
        if there
    ]
    yield (
        "opencv",
        f"{vision['version']} with {', '.join(features) or 'none of ffmpeg, gstreamer, v4l2'}",
    )
    yield (
        "gstreamer",
        "; ".join(
            [
                streams["why_not"] or "can be read",
                *([", ".join([*tools, *elements])] if tools + elements else []),
            ]
        ),
    )
    yield (
        "cameras",
        ", ".join(f"{c['device']} ({c['kind']}, {c['name']})" for c in facts["cameras"])
        or "none; test:// and files work",
    )


def _backends(facts: dict[str, Any]) -> Rows:
    yield from ((name, why or "can run") for name, why in facts["backends"].items())
