"""The system files of boards that the readers read, named and scaled as on the boards.

Their sources are in runtime/telemetry/*.py. Nothing in this file was recorded on a board, because
no board was available.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

Files = dict[str, str]
ORIN_ZONES = ("cpu", "gpu", "cv0", "cv1", "cv2", "soc0", "soc1", "soc2", "tj")
ORIN_OFF = (
    "cv0-thermal",
    "cv1-thermal",
    "cv2-thermal",
)  # the accelerators sleep: reading answers EAGAIN
ORIN_ALERTS = ("cpu", "gpu", "cv0", "soc0")
NANO_MODES = ("15W", "25W", "MAXN_SUPER", "7W")
# No text stands in a file that is a folder: reading it is an error, as of a sensor that is off.
BROKEN = "<reading it is an error>"


def make(root: Path, board: str) -> Path:
    """Write the tree of a board of `BOARDS` under `root`; return it."""
    return write(root, BOARDS[board]())


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write files by their path under `root`; return it."""
    for name, text in files.items():
        path = root / name
        (path if text == BROKEN else path.parent).mkdir(parents=True, exist_ok=True)
        if text != BROKEN:
            path.write_text(text + "\n")
    return root


def orin_nano() -> Files:
    """An Orin Nano developer kit (Super), JetPack 6.2, 25 W, clocks free.

    It has one USB and one CSI camera.
    """
    rails = monitor(
        "hwmon1",
        "ina3221",
        {"VDD_IN": (4984, 1856), "VDD_CPU_GPU_CV": (4984, 520), "VDD_SOC": (4984, 400)},
    )
    return (
        jetson("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "R36", "4.3")
        | rails
        | {
            "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages",
            "sys/class/hwmon/hwmon1/in7_input": "8",
        }
        | modes(1, NANO_MODES)
        | cpu(6, low=729_600, high=1_344_000)
        | orin_gpu("17000000.gpu", low=306_000_000, high=918_000_000)
        | zones(tuple(f"{z}-thermal" for z in ORIN_ZONES), off=ORIN_OFF)
        | alerts(ORIN_ALERTS)
        | currents()
        | fan()
        | camera(0, "HD Pro Webcam C920")
        | camera(1, "vi-output, imx219 9-0010")
        | memory(7_802_236, {"/dev/zram0": 650_180})
    )


def orin_nx() -> Files:
    """An Orin NX 16 GB on another maker's carrier, JetPack 6.2.1, MAXN, clocks locked."""
    return (
        jetson("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "R36", "4.7")
        | monitor(
            "hwmon1",
            "ina3221",
            {"VDD_IN": (5016, 3100), "VDD_CPU_GPU_CV": (5016, 1400), "VDD_SOC": (5016, 500)},
        )
        | modes(0, ("MAXN", "10W", "15W", "25W"))
        | cpu(8, low=1_984_000, high=1_984_000)
        | orin_gpu("17000000.ga10b", low=918_000_000, high=918_000_000)
        | zones(tuple(f"{z}-thermal" for z in ORIN_ZONES), off=ORIN_OFF)
        | alerts(ORIN_ALERTS)
        | currents()
        | fan()
        | memory(15_900_000, {})
    )


def agx_orin() -> Files:
    """An AGX Orin developer kit, JetPack 6.2.2, 30 W.

    Its second power monitor has two channels that are not connected.
    """
    return (
        jetson("NVIDIA Jetson AGX Orin Developer Kit", "R36", "5.0")
        | monitor(
            "hwmon3",
            "ina3221",
            {"VDD_GPU_SOC": (19_000, 320), "VDD_CPU_CV": (19_000, 100), "VIN_SYS_5V0": (4968, 953)},
        )
        | monitor("hwmon4", "ina3221", {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (4968, 80)})
        | modes(2, ("MAXN", "MODE_15W", "MODE_30W", "MODE_50W"))
        | cpu(12, low=729_600, high=1_728_000)
        | orin_gpu("17000000.ga10b", low=306_000_000, high=612_000_000)
        | zones(tuple(f"{z}-thermal" for z in ORIN_ZONES), off=ORIN_OFF)
        | alerts(ORIN_ALERTS)
        | currents()
        | fan()
        | memory(62_000_000, {})
    )


def thor() -> Files:
    """An AGX Thor developer kit, JetPack 7.1, 120 W.

    The GPU sleeps. One peak of current was counted while it booted.
    """
    return (
        jetson("NVIDIA Jetson AGX Thor Developer Kit", "R38", "4.0")
        | monitor(
            "hwmon5",
            "ina3221",
            {
                "VDD_GPU": (12_040, -33),
                "VDD_CPU_SOC_MSS": (12_040, 540),
                "VIN_SYS_5V0": (5088, 1280),
            },
        )
        | monitor("hwmon6", "ina238", {"VIN": (20_000, 1310)})
        | {"sys/class/hwmon/hwmon6/power1_input": "26200000"}
        | modes(1, ("MAXN", "120W", "90W", "70W"))
        | cpu(14, low=972_000, high=2_601_000)
        | orin_gpu("gpu-gpc-0", low=315_000_000, high=1_575_000_000)
        | {
            "sys/class/devfreq/gpu-nvd-0/cur_freq": "1",
            "sys/class/devfreq/bwmgr/cur_freq": "4266000000",
        }
        | zones(
            ("tj-thermal", "cpu-thermal", "gpu-thermal", "soc012-thermal"), off=("gpu-thermal",)
        )
        | alerts(("cpu", "gpu", "soc012"))
        | cooling(20, "devfreq-gpu-gpc-0", 18)
        | currents(oc3=1)
        | fan()
        | memory(128_790_092, {})
    )


def desktop() -> Files:
    """An x86 desktop with an NVIDIA card: nothing of a Jetson's."""
    counters = {
        f"sys/devices/system/cpu/cpu{i}/thermal_throttle/core_throttle_count": "0" for i in range(4)
    }
    return (
        cpu(4, low=800_000, high=4_500_000)
        | counters
        | zones(("acpitz", "x86_pkg_temp", "acpitz"), off=())
        | cooling(0, "Processor", 0)
        | {
            "sys/class/hwmon/hwmon0/name": "coretemp",
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86",
        }
        | camera(0, "Integrated Camera")
        | memory(32_000_000, {"/swapfile": 8_000_000})
    )


BOARDS: dict[str, Callable[[], Files]] = {
    "orin-nano": orin_nano,
    "orin-nx": orin_nx,
    "agx-orin": agx_orin,
    "thor": thor,
    "desktop": desktop,
}
JETSONS = tuple(b for b in BOARDS if b != "desktop")


def jetson(model: str, release: str, revision: str) -> Files:
    """Name of a board, its driver, CUDA, TensorRT and GStreamer as JetPack installs them."""
    plugins = "usr/lib/aarch64-linux-gnu/gstreamer-1.0"
    tensorrt = "usr/lib/python3.10/dist-packages/tensorrt/__init__.py"
    return {
        "etc/nv_tegra_release": f"# {release} (release), REVISION: {revision}, GCID: 1, "
        "BOARD: generic, EABI: aarch64, DATE: today",
        "proc/device-tree/model": f"{model}\0",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module "
        "for aarch64  540.4.0\nGCC version: 11",
        "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
        tensorrt: 'import ctypes\n__version__ = "10.3.0"',
        **{
            f"{plugins}/libgst{name}.so": ""
            for name in ("nvarguscamerasrc", "nvvidconv", "nvvideo4linux2")
        },
        "usr/bin/gst-launch-1.0": "",
        "tmp/argus_socket": "",
    }


def monitor(folder: str, kind: str, rails: Mapping[str, tuple[int, int]]) -> Files:
    """A power monitor: label, mV and mA by channel."""
    base = f"sys/class/hwmon/{folder}"
    files = {f"{base}/name": kind}
    for i, (label, (millivolts, milliamps)) in enumerate(rails.items(), 1):
        files |= {
            f"{base}/in{i}_label": label,
            f"{base}/in{i}_input": str(millivolts),
            f"{base}/curr{i}_input": str(milliamps),
        }
    return files


def modes(now: int, names: tuple[str, ...]) -> Files:
    """Nvpmodel's modes and the present one."""
    lines = [f"< POWER_MODEL ID={i} NAME={name} >\nGPU MAX_FREQ 1" for i, name in enumerate(names)]
    return {
        "etc/nvpmodel.conf": "\n".join(
            ["< PARAM TYPE=FILE NAME=GPU >", *lines, "< PM_CONFIG DEFAULT=1 >"]
        ),
        "var/lib/nvpmodel/status": f"pmode:{now:04d}",
    }


def cpu(cores: int, *, low: int, high: int) -> Files:
    """Cores in groups of four, limits in kHz, all at their highest."""
    files: Files = {}
    for core in range(cores):
        for folder in (f"cpu{core}/cpufreq", f"cpufreq/policy{core - core % 4}"):
            base = f"sys/devices/system/cpu/{folder}"
            files |= {
                f"{base}/scaling_min_freq": str(low),
                f"{base}/scaling_max_freq": str(high),
                f"{base}/scaling_cur_freq": str(high),
            }
            files[f"{base}/scaling_governor"] = "schedutil"
    return files


def orin_gpu(name: str, *, low: int, high: int) -> Files:
    """A devfreq GPU at its lowest clock, limits in Hz, 34.5 % busy in thousandths."""
    base = f"sys/class/devfreq/{name}"
    return {
        f"{base}/min_freq": str(low),
        f"{base}/max_freq": str(high),
        f"{base}/cur_freq": str(low),
        f"{base}/device/load": "345",
    }


def zones(kinds: tuple[str, ...], *, off: tuple[str, ...]) -> Files:
    """Thermal zones at 40, 41, ... degrees; those that are off answer with an error."""
    files: Files = {}
    for i, kind in enumerate(kinds):
        files |= {
            f"sys/class/thermal/thermal_zone{i}/type": kind,
            f"sys/class/thermal/thermal_zone{i}/temp": BROKEN
            if kind in off
            else str(40_000 + 1000 * i),
        }
    return files


def cooling(number: int, kind: str, state: int) -> Files:
    """A cooling device and its state."""
    base = f"sys/class/thermal/cooling_device{number}"
    return {f"{base}/type": kind, f"{base}/cur_state": str(state)}


def alerts(parts: tuple[str, ...], *, active: tuple[str, ...] = ()) -> Files:
    """A running fan and a throttle alert for each part of the chip, numbered as the kernel does."""
    files = cooling(0, "pwm-fan", 3)
    for i, part in enumerate(parts, 8):
        files |= cooling(i, f"{part}-throttle-alert", int(part in active))
    return files


def currents(**counts: int) -> Files:
    """The counts of too little and too much current."""
    base = "sys/class/hwmon/hwmon9"
    return {f"{base}/name": "soctherm_oc"} | {
        f"{base}/{oc}_event_cnt": str(counts.get(oc, 0)) for oc in ("oc1", "oc2", "oc3")
    }


def fan() -> Files:
    """A fan at a fifth of its speed."""
    return {"sys/class/hwmon/hwmon0/name": "pwmfan", "sys/class/hwmon/hwmon0/pwm1": "51"}


def camera(number: int, name: str) -> Files:
    """A V4L2 device."""
    return {f"dev/video{number}": "", f"sys/class/video4linux/video{number}/name": name}


def memory(total_kb: int, swaps: Mapping[str, int]) -> Files:
    """Memory, half of it available, and swap by device, all in kB."""
    lines = [
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority",
        *(f"{name}  partition\t{size}\t0\t5" for name, size in swaps.items()),
    ]
    return {
        "proc/meminfo": f"MemTotal: {total_kb} kB\nMemAvailable: {total_kb // 2} kB\n"
        f"SwapTotal: {sum(swaps.values())} kB",
        "proc/swaps": "\n".join(lines),
    }
