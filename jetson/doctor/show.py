"""The facts as a page for people: two columns that stay readable at 80, then the problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finedge.jetson.doctor.pictures import FEATURES
from finedge.tables import one_line, styled

Rows = Iterator[tuple[str, str]]
INT8 = {
    "exact": "runs the files as they are: products are exact",
    "saturating": "scales weights to fit sums of 16 bits: products would saturate on this CPU",
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
    cores = machine["cores"]
    if board:
        yield "board", f"{board['board']}, JetPack {board['jetpack']} (L4T {board['l4t']})"
    yield "platform", machine["platform"]
    count = cores if isinstance(cores, str) else len(cores)
    flags = " ".join(machine["cpu_flags"]) or "no flags of interest"
    yield "cpu", f"{machine['cpu']}, {count} cores; {flags}"
    yield "int8", f"ONNX Runtime: {INT8.get(machine['int8_products'], machine['int8_products'])}"
    yield "memory", _memory(machine["memory_mib"])
    swap = ", ".join(f"{size} MiB {name}" for name, size in facts["swap_mib"].items())
    yield "swap", swap or "none"
    yield "disk", f"{facts['disk_free_mib']} MiB free"
    packages = [f"{name} {version}" for name, version in machine["versions"].items()]
    yield "python", ", ".join([machine["python"], *packages])


def _memory(memory: dict[str, int] | str) -> str:
    if isinstance(memory, str):
        return memory
    return f"{memory['available']} of {memory['total']} MiB available"


def _power(facts: dict[str, Any]) -> Rows:
    telemetry = facts["telemetry"]
    if facts["jetson"]:
        modes = ", ".join(facts["power_modes"].values()) or "unknown"
        yield "mode", f"{telemetry['power_mode'] or 'unknown'} (of {modes})"
    yield "clocks", f"{_clocks(telemetry)}; governor {facts['environment']['governor']}"
    watts, sensor = telemetry["power_w"], telemetry["power_from"]
    yield "power", "unknown" if watts is None else f"{watts:.1f} W ({sensor})"
    celsius = [(c, name) for name, c in telemetry["temperatures_c"].items() if c is not None]
    yield "hottest", f"{max(celsius)[0]:.0f} C ({max(celsius)[1]})" if celsius else "unknown"
    state = {None: "unknown", True: ", ".join(telemetry["throttled_by"]), False: "no"}
    history = _history(telemetry["throttle_events"])
    yield "throttled", state[telemetry["throttled"]] + history


def _clocks(telemetry: dict[str, Any]) -> str:
    clocks = {name: telemetry[f"{name}_mhz"] for name in ("cpu", "gpu", "memory")}
    readings = ", ".join(f"{name} {mhz:.0f} MHz" for name, mhz in clocks.items() if mhz is not None)
    locked = {None: "", True: ", locked", False: ", not locked"}[telemetry["clocks_locked"]]
    return (readings or "unknown") + locked


def _history(events: dict[str, int]) -> str:
    counts = [f"{name} {count}" for name, count in events.items() if count]
    return f"; since boot: {', '.join(counts)}" if counts else ""


def _gpu(facts: dict[str, Any]) -> Rows:
    gpu, image = facts["gpu"], facts["plugin_image"]
    yield "device", _device(gpu) if gpu else facts["why_no_gpu"] or "none"
    yield "driver", facts["nvidia_driver"] or "none"
    versions = facts["cuda_versions"].items()
    yield "cuda", ", ".join(f"{name} {version}" for name, version in versions if version) or "none"
    yield "tensorrt", _tensorrt(facts["tensorrt"])
    reasons = facts["onnxruntime_providers"]
    providers = [name for name, why_not in reasons.items() if why_not is None]
    yield "onnxruntime", ", ".join(providers) or "no provider for a GPU can run"
    yield "plugin image", image["file"] or image["why_not"]


def _device(gpu: dict[str, Any]) -> str:
    capability = f"compute capability {gpu['compute_capability']}"
    return f"{gpu['name']}, {capability}, {gpu['memory_mib']} MiB"


def _tensorrt(libraries: dict[str, Any]) -> str:
    system = libraries["system"]
    versions = [
        f"{name} {library['version']}"
        for name, library in libraries.items()
        if name != "system" and library["version"]
    ]
    note = f"; the system's Python has {system['version']}" if system else ""
    return (", ".join(versions) or "none") + note


def _pictures(facts: dict[str, Any]) -> Rows:
    opencv, gstreamer = facts["opencv"], facts["gstreamer"]
    features = ", ".join(name for name in FEATURES if opencv.get(name))
    yield "opencv", f"{opencv['version']} with {features or 'none of ' + ', '.join(FEATURES)}"
    tools = {"gst-launch-1.0": gstreamer["gst_launch"], "python3-gi": gstreamer["gi"]}
    parts = [name for name, present in {**tools, **gstreamer["elements"]}.items() if present]
    state = gstreamer["why_not"] or "can be read"
    yield "gstreamer", "; ".join([state, *([", ".join(parts)] if parts else [])])
    yield from _decoders(facts["decoders"])
    cameras = ", ".join(f"{c['device']} ({c['kind']}, {c['name']})" for c in facts["cameras"])
    yield "cameras", cameras or "none; test:// and files work"


def _decoders(decoders: dict[str, Any]) -> Rows:
    pyav, hardware = decoders["pyav"], decoders["hardware"]
    built_for = ", ".join(pyav.get("built_for", ())) or "no hardware"
    version = f"{pyav['version']} with FFmpeg {pyav.get('ffmpeg')}, built for {built_for}"
    yield "pyav", version if pyav["version"] else pyav["error"]
    yield "decoded by", "; ".join(f"{kind}: {how}" for kind, how in decoders["used"].items())
    devices = [
        *(f"{node} (VA-API)" for node in hardware["render_nodes"]),
        *([f"{hardware['nvdec']} (NVDEC)"] if hardware["nvdec"] else []),
        *(f"{device} ({name})" for device, name in hardware["v4l2"].items()),
        *(f"GStreamer's {name}" for name in hardware["gstreamer"]),
    ]
    yield "hardware", ", ".join(devices) or "no decoder in hardware was found"


def _backends(facts: dict[str, Any]) -> Rows:
    yield from ((name, why_not or "can run") for name, why_not in facts["backends"].items())
