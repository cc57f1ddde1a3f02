"""`finedge data render`: writes rendered species as an ordinary folder of images."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tyro.conf import Positional

from finedge.document import read_json
from finedge.errors import DataError, UsageError
from finedge.files import new_folder, writable_place
from finedge.progress import watched
from finedge.schema import Misfit, decode
from finedge.synthetic.scene import render_image
from finedge.synthetic.species import SPECIES

log = logging.getLogger(__name__)

RECORD = "render.json"  # marks a rendered folder and holds its plan
EDITION = 1  # to be raised when the same seed gives other pictures
_RANGES = {
    "classes": (2, len(SPECIES)),
    "train": (1, 99999),
    "val": (0, 99999),
    "test": (0, 99999),
    "size": (32, 512),
    "seed": (0, 2**32 - 1),
}


@dataclass(frozen=True)
class RenderPlan:
    """The images to render: how many a class in each split, the side in pixels, and the seed."""

    classes: int
    train: int
    val: int
    test: int
    size: int
    seed: int
    edition: int = EDITION

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"--{name} is {getattr(self, name)}", expected=f"{low} to {high}")

    def images(self) -> Iterator[tuple[str, tuple[int, int, int]]]:
        """Yield (path below the root, (split, class, index)) of every image."""
        for split, name in enumerate(("train", "val", "test")):
            for label in range(self.classes):
                for index in range(getattr(self, name)):
                    yield f"{name}/{SPECIES[label].name}/{index:05d}.jpg", (split, label, index)


def render(
    out: Positional[Path],
    *,
    classes: int = 12,
    train: int = 60,
    val: int = 10,
    test: int = 30,
    size: int = 224,
    seed: int = 0,
) -> dict[str, Any]:
    """Render birds whose species differ only in small parts, as OUT/{train,val,test}/SPECIES/*.jpg.

    An image depends only on the seed, its split, its species and its number. So a smaller set is
    part of a larger one. The same arguments change nothing when repeated. Other arguments replace a
    folder that this command made, and no other folder.

    Args:
        out: The folder to make.
        classes: Number of species, 2 to 24; an even number takes whole pairs.
        train: Training images a species.
        val: Validation images a species.
        test: Test images a species.
        size: Side of an image in pixels.
        seed: Another seed gives other pictures of the same species.

    Raises:
        DataError: OUT holds something that this command did not write.
        UsageError: an argument is out of range.
    """
    plan, out = RenderPlan(classes, train, val, test, size, seed), Path(out).resolve()
    paths = {path for path, _ in plan.images()}
    missing = not _is_rendered(out, plan, paths)
    if missing:
        writable_place(out.parent, option="OUT")
        _write(out, plan, count=len(paths))
    else:
        log.info("%s holds these %d images already: nothing to do", out, len(paths))
    return {
        "out": str(out),
        "classes": classes,
        "images": len(paths),
        "rendered": len(paths) if missing else 0,
    }


def _is_rendered(out: Path, plan: RenderPlan, paths: set[str]) -> bool:
    """Tell whether `out` holds the plan; refuse a folder with files that were not rendered."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    old = _recorded_plan(out)
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()} - {RECORD}
    foreign = sorted(files - {path for path, _ in old.images()}) if old else sorted(files)
    if old is None or foreign:
        what = (
            f"{out} holds files that were not rendered: {', '.join(foreign[:3]) or 'folders'}"
            if out.is_dir()
            else f"{out} is a file"
        )
        raise DataError(
            what,
            expected="a new or empty folder, or one made by this command",
            fix="name another folder",
        )
    return old == plan and files == paths


def _recorded_plan(out: Path) -> RenderPlan | None:
    """Return the plan of a rendered folder, or None for any other folder."""
    try:
        return decode(
            RenderPlan,
            read_json(out / RECORD, error=DataError, fix="name another folder"),
            strict=True,
        )
    except (OSError, Misfit, DataError):
        return None


def _write(out: Path, plan: RenderPlan, *, count: int) -> None:
    """Render into a folder beside `out` and rename it, so that `out` is complete or absent."""
    with new_folder(out) as beside:
        for path, key in watched(plan.images(), f"rendering {out.name}", total=count):
            file = beside / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded_image(key, size=plan.size, seed=plan.seed))
        (beside / RECORD).write_text(json.dumps(asdict(plan)))


def encoded_image(key: tuple[int, int, int], *, size: int, seed: int) -> bytes:
    """Return the JPEG of one (split, class, index). Its quality varies from 55 to 95."""
    rng = np.random.default_rng([seed, *key])
    image = render_image(SPECIES[key[1]], rng, size=size)
    _, data = cv2.imencode(
        ".jpg",
        cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(55, 96))],
    )
    return data.tobytes()
