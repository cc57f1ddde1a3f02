"""A second look: accuracy with and without it, against controls of the same cost, and its CPU time.

    python benchmarks/look_twice.py val BUNDLE --data DIR --name ROW
    python benchmarks/look_twice.py choose
    python benchmarks/look_twice.py test BUNDLE --data DIR --name ROW
    python benchmarks/look_twice.py table

`val` classifies the val split with every size of the second crop, placed by every map of the
bundle. `choose` adds these rows up and prints the size and the map with the most right answers:
the defaults of `--look-crop` and `--look-view`. `test` reads the test split with the size that
`choose` prints, and measures the time. A row that is there is not measured again.

Controls have the same cost and no map: `centre` looks at the middle of the first crop, and `flip`
at the mirrored crop. A map helps only where its crop is better than both. `against controls` of a
row has that comparison, image by image; the first rows lack it.

Times are CPU milliseconds of one thread for a frame in memory, preprocessing included, medians of
interleaved shuffled blocks. Rows are in benchmarks/results/look_twice.
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tyro
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.files import write_text
from finedge.image import read_image
from finedge.measure import mcnemar, wilson95
from finedge.preprocess import preprocess_batch
from finedge.progress import watched
from finedge.runtime.backend import SessionOptions
from finedge.runtime.classifier import Classifier
from finedge.runtime.evaluate.labelled import SplitOptions, evaluated_images
from finedge.runtime.explain.open import OpenViews, open_views
from finedge.runtime.look_twice.options import LookOptions
from finedge.runtime.look_twice.second_look import SecondLook
from finedge.runtime.look_twice.window import cut, whole, window
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.ort.backend import OnnxRuntimeBackend

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/look_twice"
SIZES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MAPS = ("cam", "attention", "mask")  # of these the deepest view of each kind
CENTRE, FLIP = "centre", "flip"
FRAMES, BLOCKS = 8, 24  # of the times
OPTIONS = SessionOptions(threads=1)
Image = NDArray[np.uint8]
Second = Callable[[dict[str, NDArray[np.float32]], Image, Image], Image]
"""Outputs of the first look, the frame and the first input: the second input."""


@dataclass(frozen=True)
class Looks:
    """Every second look of a bundle, by name.

    Attributes:
        bundle: that is measured.
        views: all views that a look reads.
        seconds: {name: what makes the second input}.
    """

    bundle: Bundle
    views: OpenViews
    seconds: dict[str, Second]


def looks(
    bundle: Bundle, *, variant: str, sizes: tuple[float, ...], kinds: tuple[str, ...] = MAPS
) -> Looks:
    """Return the second looks of a bundle, the controls too."""
    deepest = {view.kind: view for view in bundle.views if view.kind in kinds}
    views = open_views(bundle, variant=variant, views=tuple(deepest.values()))
    seconds: dict[str, Second] = {FLIP: lambda _, __, first: first[:, :, ::-1]}
    for size in sizes:
        seconds[f"{CENTRE} {size}"] = _centre(bundle, size)
        for opened in views.views:
            one = replace(views, views=(opened,))
            seconds[f"{opened.view.kind} {size}"] = _at_peak(SecondLook(one, size))
    return Looks(bundle, views, seconds)


def _at_peak(look: SecondLook) -> Second:
    return lambda outputs, frame, _: look.crops(outputs, [frame])


def _centre(bundle: Bundle, size: float) -> Second:
    config = bundle.spec.preprocess
    middle = (config.crop / 2, config.crop / 2)

    def crop(_: object, frame: Image, __: object) -> Image:
        part = cut(frame, window(frame.shape[:2], config, peak=middle, share=size))
        return preprocess_batch([part], whole(config), count=1)

    return crop


def answers(
    opened: Looks, *, data: Path, split: str
) -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.bool_]]:
    """Return right answers [images] of each second look, and of the first look alone."""
    items = evaluated_images(opened.bundle, SplitOptions(data=data, split=split)).items
    main = opened.bundle.spec.main.name
    session = opened.views.session(OnnxRuntimeBackend(OPTIONS))
    right: list[NDArray[np.bool_]] = []
    for item in watched(items, split):
        frame = read_image(item.path)
        first = preprocess_batch([frame], opened.bundle.spec.preprocess, count=1)
        outputs = session(first)
        inputs = [make(outputs, frame, first) for make in opened.seconds.values()]
        scores = outputs[main] + session(np.concatenate(inputs))[main]
        named = np.concatenate([outputs[main], scores]).argmax(axis=1)
        right.append(named == item.label)
    table = np.stack(right, axis=1)
    return dict(zip(opened.seconds, table[1:], strict=True)), table[0]


def compared(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the accuracy of `second`, and its paired difference to `first`."""
    lost, gained = int((first & ~second).sum()), int((second & ~first).sum())
    return {
        "right": int(second.sum()),
        "top1": round(float(second.mean()), 6),
        "wilson95": wilson95(int(second.sum()), len(second)),
        "lost": lost,
        "gained": gained,
        "mcnemar_p": round(mcnemar(lost, gained), 6),
    }


def row(
    bundle: Bundle, right: dict[str, NDArray[np.bool_]], one: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return what a row says of any split."""
    return {
        "model": bundle.spec.model,
        "bundle": bundle.name,
        "images": len(one),
        "one look": compared(one, one),
        "two looks": {name: compared(one, second) for name, second in right.items()},
        "cpu": cpu_name(),
        "versions": {"onnxruntime": onnxruntime.__version__},
        "commit": commit(),
    }


def on_val(
    bundle: tyro.conf.Positional[Path], *, data: Path, name: str, variant: str = "fp32"
) -> None:
    """Classify the val split with every second look.

    Args:
        bundle: with views.
        data: its images.
        name: of the row.
        variant: fp32 or int8.
    """
    file = RESULTS / f"{name}.val.json"
    if file.is_file():
        return
    opened = looks(Bundle.load(bundle), variant=variant, sizes=SIZES)
    right, one = answers(opened, data=data, split="val")
    write(file, {"name": name, "variant": variant, **row(opened.bundle, right, one)})


def choose() -> tuple[str, float]:
    """Print and return the map and the size with the most right answers on val.

    A map that a bundle lacks is left out of the sum there, so the gain over one look is compared.
    """
    rows = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.val.json"))]
    gains: dict[str, list[float]] = {}
    for one in rows:
        for name, two in one["two looks"].items():
            points = 100 * (two["top1"] - one["one look"]["top1"])
            gains.setdefault(name, []).append(points)
    means = {name: statistics.mean(points) for name, points in gains.items()}
    for name, points in sorted(means.items(), key=lambda pair: -pair[1]):
        print(f"{name:15} {points:+.2f} points over {len(gains[name])} bundles")
    best = max((n for n in means if n.split()[0] in MAPS), key=lambda n: (len(gains[n]), means[n]))
    kind, size = best.split()
    print(f"--look-view {kind} --look-crop {size}")
    return kind, float(size)


def on_test(
    bundle: tyro.conf.Positional[Path], *, data: Path, name: str, variant: str = "fp32"
) -> None:
    """Read the test split with what val chose, and measure the time.

    Args:
        bundle: with views.
        data: its images.
        name: of the row.
        variant: fp32 or int8.
    """
    file = RESULTS / f"{name}.test.json"
    if file.is_file():
        return
    kind, size = choose()
    opened = looks(Bundle.load(bundle), variant=variant, sizes=(size,), kinds=(kind,))
    right, one = answers(opened, data=data, split="test")
    items = evaluated_images(opened.bundle, SplitOptions(data=data)).items[:: len(one) // FRAMES]
    frames = [read_image(item.path) for item in items[:FRAMES]]
    times = cpu_times(opened.bundle, frames, variant=variant, look=LookOptions(True, size))
    chosen = right.pop(f"{kind} {size}")
    against = {control: compared(other, chosen) for control, other in right.items()}
    content = {"name": name, "variant": variant, "chosen": {"view": kind, "crop": size}}
    looked = row(opened.bundle, {f"{kind} {size}": chosen, **right}, one)
    write(file, {**content, **looked, "against controls": against, "cpu_ms": times})


def cpu_times(
    bundle: Bundle, frames: list[Image], *, variant: str, look: LookOptions
) -> dict[str, float]:
    """Return median CPU ms of a frame by what classifies it, preprocessing included."""
    calls = dict(candidates(bundle, variant=variant, look=look))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for block in range(BLOCKS + 1):
        for name in random.Random(block).sample(sorted(calls), len(calls)):
            for frame in frames:
                start = time.thread_time_ns()
                calls[name](frame)
                if block:  # the first one warms up
                    samples[name].append((time.thread_time_ns() - start) / 1e6)
    return {name: round(statistics.median(ms), 4) for name, ms in samples.items()}


def candidates(
    bundle: Bundle, *, variant: str, look: LookOptions
) -> Iterator[tuple[str, Callable[[Image], object]]]:
    """Yield a name and a call that classifies a frame."""
    for name, options in (("one look", LookOptions()), ("two looks", look)):
        classifier = Classifier.open(
            bundle, variant=variant, backend="onnxruntime", threads=1, look=options
        )
        yield name, lambda frame, classifier=classifier: classifier([frame])


def table() -> None:
    """Print the rows of the test split as Markdown."""
    heads = ("bundle", "variant", "images", "one look", "two looks", "lost", "gained", "p")
    print(f"| {' | '.join((*heads, 'centre', 'flip', 'CPU ms'))} |")
    print("| --- " * (len(heads) + 3) + "|")
    for file in sorted(RESULTS.glob("*.test.json")):
        one = json.loads(file.read_text())
        chosen, seconds = one["chosen"], one["two looks"]
        two = seconds[f"{chosen['view']} {chosen['crop']}"]
        centre, flip = seconds[f"{CENTRE} {chosen['crop']}"], seconds[FLIP]
        ms = one["cpu_ms"]
        cells = (
            *(one["name"], one["variant"], one["images"]),
            *(percent(one["one look"]), percent(two)),
            *(two["lost"], two["gained"], f"{two['mcnemar_p']:.2g}"),
            *(percent(centre), percent(flip)),
            f"{ms['one look']:.2f}, {ms['two looks']:.2f}",
        )
        print(f"| {' | '.join(map(str, cells))} |")


def percent(record: dict[str, Any]) -> str:
    """Return the accuracy in percent."""
    return f"{100 * record['top1']:.1f}"


def write(file: Path, content: dict[str, Any]) -> None:
    """Write a row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(content, indent=1) + "\n")


def commit() -> str:
    """Return the commit that measured."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    commands = {"val": on_val, "choose": choose, "test": on_test, "table": table}
    tyro.extras.subcommand_cli_from_dict(commands)
