"""What INT8 costs in accuracy: every family, several data sets, CPUs with and without VNNI.

    python benchmarks/int8_accuracy.py run grocery=DIR cub=DIR --work WORK [--families plain cnl]
    python benchmarks/int8_accuracy.py table

`run` trains, exports and calibrates what is missing in WORK; that takes hours on two cores. Call it
again to continue. Then the test split is classified three times: in float32, with exact INT8
products (VNNI), and as a CPU without VNNI computes them. Rows are in
benchmarks/results/int8_accuracy/DATA-FAMILY.json; a row that is there is not made again.
`table` prints them.

Where a row loses more than the target, `--max-drop 1.0` calibrates a copy with that budget. Its row
is in benchmarks/results/int8_accuracy/max_drop/, with the share of the operations in INT8.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.families import FAMILIES, Study, _keep, finedge, git, slug, train
from finedge.bundle import Bundle
from finedge.runtime.benchmark.accuracy import Change, change
from finedge.runtime.classifier import Classifier
from finedge.runtime.evaluate.labelled import SplitOptions, evaluated_images
from finedge.runtime.evaluate.predict import Answers, predict
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.ort.int8_products import OVERRIDE, measured_products

RESULTS = Path(__file__).resolve().parent / "results/int8_accuracy"
# How the CPUs multiply: the values of FINEDGE_CPU_INT8.
CPUS = {"vnni": "exact", "no_vnni": "saturating"}
# The targets: points of top-1 lost, of those beyond chance, and the share of answers that change.
MAX_DROP, MAX_DROP_BY_CHANCE, MAX_FLIPS = 0.005, 0.010, {"vnni": 0.03, "no_vnni": 0.05}
COLUMNS = ("data", "model", "n", "FP32", *(f"{cpu} {c}" for cpu in CPUS for c in ("INT8", "flips")))
log = logging.getLogger("int8_accuracy")


def run(
    data: tyro.conf.Positional[tuple[str, ...]],
    *,
    work: Path,
    families: tuple[str, ...] = tuple(FAMILIES),
    recipe: str = "lite0_fast",
    max_drop: float | None = None,
    commit: bool = False,
) -> None:
    """Make what is missing, row by row.

    Args:
        data: NAME=DIR, folders of images with an official test split.
        work: folder for runs and bundles.
        families: models of `benchmarks/families.py`.
        recipe: the recipe of all trainings.
        max_drop: budget in points for the models whose row misses the target.
        commit: commit each row after it is made.
    """
    for name, folder in (word.split("=", 1) for word in data):
        for family in families:
            study = Study(Path(folder), work / name, recipe, "efficientnet_lite0", commit)
            path = RESULTS / f"{name}-{slug(family)}.json"
            head = {"data": name, "family": family}
            if not path.is_file():
                _keep(study, path, {**head, **_row(study, family)})
            if max_drop is not None and not _all_hold(json.loads(path.read_text())):
                searched = RESULTS / "max_drop" / path.name
                searched.parent.mkdir(exist_ok=True)
                if not searched.is_file():
                    _keep(study, searched, {**head, **_searched_row(study, family, max_drop)})


def table() -> None:
    """Print the rows as a Markdown table; a cell that misses a target is bold."""
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"| {' | '.join(['---'] * len(COLUMNS))} |")
    for row in rows():
        cells = [row["data"], f"`{row['family']}`", str(row["fp32"]["n"])]
        cells.append(f"{100 * row['fp32']['top1']:.1f}")
        cells += [cell for cpu in CPUS for cell in _cells(row[cpu], row["fp32"]["n"], cpu)]
        print(f"| {' | '.join(cells)} |")


def rows() -> Iterator[dict[str, Any]]:
    """Yield the rows that are there, by data set, in the order of the families."""
    paths = sorted(RESULTS.glob("*.json"))
    loaded = [json.loads(path.read_text()) for path in paths]
    order = list(FAMILIES)
    yield from sorted(loaded, key=lambda row: (row["data"], order.index(row["family"])))


def holds(result: dict[str, Any]) -> bool:
    """Tell whether the accuracy that INT8 loses is within the target.

    It is at most half a point, or at most one that may be chance (McNemar p > 0.05).
    """
    drop = -float(result["top1_change"])
    return drop <= MAX_DROP or (drop <= MAX_DROP_BY_CHANCE and result["mcnemar_p"] > 0.05)


def _all_hold(row: dict[str, Any]) -> bool:
    return all(holds(row[cpu]) for cpu in CPUS)


def _cells(result: dict[str, Any], n: int, cpu: str) -> tuple[str, str]:
    low, high = (100 * bound for bound in result["top1_change95"])
    top1 = f"{100 * result['top1_change']:+.1f} ({low:+.1f}..{high:+.1f})"
    flips = f"{100 * result['flips'] / n:.1f} %"
    within = result["flips"] / n <= MAX_FLIPS[cpu]
    return top1 if holds(result) else f"**{top1}**", flips if within else f"**{flips}**"


def _row(study: Study, family: str) -> dict[str, Any]:
    study.work.mkdir(parents=True, exist_ok=True)
    folder, path = study.folder(family, 0), study.bundle(family, 0)
    record = train(study, family, 0)
    if not path.exists():
        finedge("export", folder, "--out", path)
    if "int8" not in Bundle.load(path).variants():
        finedge("calibrate", path, "--data", study.data)
    return {
        "recipe": study.recipe,
        "epochs": record["epochs"],
        **_measured(Bundle.load(path), study),
    }


def _searched_row(study: Study, family: str, max_drop: float) -> dict[str, Any]:
    """Calibrate a copy with a budget, and measure it."""
    path = study.bundle(family, 0)
    copy = path.with_name(f"{path.stem}-max-drop.finedge")
    shutil.copytree(path, copy, dirs_exist_ok=True)
    finedge("calibrate", copy, "--data", study.data, "--max-drop", str(max_drop))
    bundle = Bundle.load(copy)
    search = bundle.provenance["calibrate"]["search"]
    return {"max_drop": max_drop, **_picked(search), **_measured(bundle, study)}


def _picked(search: dict[str, Any]) -> dict[str, Any]:
    point = search["points"][search["pick"] - 1]
    return {"decision": point, "int8_macs": point["int8_macs"]}


def _measured(bundle: Bundle, study: Study) -> dict[str, Any]:
    return {
        "preprocess": bundle.spec.preprocess.describe(),
        **_accuracy(bundle, study.data),
        "cpu": cpu_name(),
        "cpu_products": measured_products(),
        "commit": git("rev-parse", "--short", "HEAD"),
    }


def _accuracy(bundle: Bundle, data: Path) -> dict[str, Any]:
    """Return the accuracy in float32, and what changes with INT8 on both kinds of CPU."""
    items = evaluated_images(bundle, SplitOptions(data)).items
    answers = _answers(bundle, items, variant="fp32")
    changes: dict[str, Change] = {}
    for cpu, products in CPUS.items():
        with _multiplying(products):
            changes[cpu] = change(answers, _answers(bundle, items, variant="int8"))
    return {"fp32": answers.record(), **{cpu: asdict(value) for cpu, value in changes.items()}}


def _answers(bundle: Bundle, items: Sequence[Any], *, variant: str) -> Answers:
    with Classifier.open(bundle, variant=variant, backend="onnxruntime") as classifier:
        log.info("%s: %s", bundle.name, classifier.session.info.precision)
        return predict(classifier, tuple(items))


@contextmanager
def _multiplying(products: str) -> Iterator[None]:
    """Open INT8 files as a CPU of this kind does; cut weights are exact on every CPU."""
    os.environ[OVERRIDE] = products
    try:
        yield
    finally:
        del os.environ[OVERRIDE]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tyro.extras.subcommand_cli_from_dict({"run": run, "table": table})
