"""Every family of models by one recipe on one data set: accuracy, latency, robustness.

Accuracy is by seed at FP32 and INT8; latency is of all families in one interleaved run.

    python benchmarks/families.py run DATA WORK [--commit]
    python benchmarks/families.py table

`run` trains what is not trained yet; that takes hours on two cores. Call it again to continue.
`table` prints the rows that are there; missing cells are "not run".

Rows are in benchmarks/results/families/ROW-sSEED.json, the latencies in latency.json, the
robustness in robustness.json. A row that is there is not made again. Run latency and robustness
(`--only latency`, `--only robustness`) on a quiet machine.
"""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from finedge.files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/families"
# name in the table -> model and its options
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {}),
    "cnl": ("cnl", {}),
    "nl": ("nl", {}),
    "cs": ("cs", {}),
    "clca_cga edge": ("clca_cga", {"width": "edge"}),
    "attend_rectify 1x1": ("attend_rectify", {"kernel_size": 1}),
    "csca": ("csca", {}),
    "ca": ("ca", {}),
    "sa": ("sa", {}),
    "fcn": ("fcn", {}),
}
SEEDS = 3  # for plain and the two best of seed 0
LAST = "fcn"  # the same function as plain (tests/train/test_gates.py): the least informative row
PERTURBED = 500  # images for each perturbation
VARIANTS = ("fp32", "int8")
KEPT = ("top1", "top5", "n", "wilson95", "file")  # of what `finedge evaluate` prints
COLUMNS = (
    "model",
    "seeds",
    "top-1, seed 0 (95 %)",
    "mean (range)",
    "mean INT8",
    "p50 FP32",
    "p50 INT8",
    "INT8 points per ms",
    "lost when perturbed",
)
Part = Literal["rows", "latency", "robustness"]
log = logging.getLogger("families")


@dataclass(frozen=True)
class Study:
    """Where images and working files are, and how the models are trained."""

    data: Path
    work: Path
    recipe: str
    backbone: str
    commit: bool

    def folder(self, family: str, seed: int) -> Path:
        """Return the run of a family."""
        return self.work / f"{slug(family)}-s{seed}"

    def bundle(self, family: str, seed: int) -> Path:
        """Return the bundle of a family."""
        return self.folder(family, seed).with_suffix(".finedge")


def run(
    data: tyro.conf.Positional[Path],
    work: tyro.conf.Positional[Path],
    *,
    recipe: str = "lite0_fast",
    backbone: str = "efficientnet_lite0",
    only: Part | None = None,
    commit: bool = False,
) -> None:
    """Make what is missing: rows, then latency, then robustness.

    Args:
        data: folder of images with an official test split.
        work: folder for runs and bundles (several GB).
        recipe: the recipe of all families.
        backbone: the backbone of all families.
        only: make one part alone.
        commit: commit each result after it is made.
    """
    study = Study(data, work, recipe, backbone, commit)
    work.mkdir(parents=True, exist_ok=True)
    if only in (None, "rows"):
        for family, seed in _planned():
            if not row_path(family, seed).is_file():
                _keep(study, row_path(family, seed), _row(study, family, seed))
    for part, make in (("latency", _latency), ("robustness", _robustness)):
        if only == part or (only is None and not (RESULTS / f"{part}.json").is_file()):
            _keep(study, RESULTS / f"{part}.json", make(study))


def table() -> None:
    """Print the results as a Markdown table."""
    latency, robust = (_read(RESULTS / f"{part}.json") for part in ("latency", "robustness"))
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"| {' | '.join(['---'] * len(COLUMNS))} |")
    for family in FAMILIES:
        cells = _cells(rows_of(family), latency.get(family, {}), robust.get(family, {}))
        print(f"| {' | '.join([f'`{family}`', *cells])} |")


def _planned() -> Iterator[tuple[str, int]]:
    """Yield (family, seed): seed 0 of all but `LAST`, then more seeds of plain and the two best."""
    yield from ((family, 0) for family in FAMILIES if family != LAST)
    others = [family for family in FAMILIES if family not in ("plain", LAST)]
    best = sorted(others, key=lambda family: -_read(row_path(family, 0))["fp32"]["top1"])[:2]
    yield from ((family, seed) for seed in range(1, SEEDS) for family in ("plain", *best))
    yield LAST, 0


def _row(study: Study, family: str, seed: int) -> dict[str, Any]:
    """Train, export, calibrate and evaluate one model; finished steps are skipped."""
    folder, bundle = study.folder(family, seed), study.bundle(family, seed)
    epochs = train(study, family, seed)["epochs"]
    if not bundle.exists():
        finedge("export", folder, "--out", bundle)
    finedge("calibrate", bundle, "--data", study.data)
    accuracy = {
        variant: finedge("evaluate", bundle, "--data", study.data, "--variant", variant)
        for variant in VARIANTS
    }
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return {
        "family": family,
        "seed": seed,
        "recipe": study.recipe,
        "backbone": study.backbone,
        **{variant: {key: accuracy[variant][key] for key in KEPT} for variant in VARIANTS},
        "epochs": epochs,
        "last_loss": last["loss"],
        "commit": git("rev-parse", "--short", "HEAD"),
    }


def train(study: Study, family: str, seed: int) -> dict[str, Any]:
    """Train a family, or continue; return the record that `finedge train` prints."""
    folder, (model, options) = study.folder(family, seed), FAMILIES[family]
    if (folder / "run.json").is_file():
        return finedge("train", "--out", folder, "--resume")
    chosen = {"model": model, "backbone": study.backbone, "recipe": study.recipe, "seed": seed}
    words = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    for name, value in options.items():
        words += ["--option", f"{name}={value}"]
    return finedge("train", *words, "--data", study.data, "--out", folder)


def _latency(study: Study) -> dict[str, Any]:
    """Measure all families of seed 0 interleaved in one run."""
    bundles = {
        study.bundle(family, 0).name.removesuffix(".finedge"): family
        for family in FAMILIES
        if study.bundle(family, 0).exists()
    }
    out, paths = study.work / "latency", [study.work / f"{name}.finedge" for name in bundles]
    options = ("--duration", "10s", "--accuracy-images", 1)
    finedge("benchmark", *paths, "--data", study.data, *options, "--out", out)
    report = json.loads((out / "report.json").read_text())
    measured: dict[str, Any] = {
        "environment": report["environment"],
        "commit": git("rev-parse", "--short", "HEAD"),
    }
    for row in report["rows"]:
        measured.setdefault(bundles[row["bundle"]], {})[row["variant"]] = {
            key: row[key] for key in ("n", "p50_ms", "p90_ms", "p99_ms", "valid")
        }
    return measured


def _robustness(study: Study) -> dict[str, Any]:
    """Evaluate seed 0 of all families at FP32 on perturbed images."""
    options = ("--variant", "fp32", "--robustness", "--images", PERTURBED)
    bundles = {family: study.bundle(family, 0) for family in FAMILIES}
    return {
        family: finedge("evaluate", bundle, "--data", study.data, *options)
        for family, bundle in bundles.items()
        if bundle.exists()
    }


def _cells(
    rows: list[dict[str, Any]], latency: dict[str, Any], robust: dict[str, Any]
) -> list[str]:
    if not rows:
        return ["0", *["not run"] * 7]
    first = rows[0]["fp32"]
    top1 = [100 * row["fp32"]["top1"] for row in rows]
    low, high = (100 * bound for bound in first["wilson95"])
    int8 = statistics.mean(100 * row["int8"]["top1"] for row in rows)
    ms = {variant: latency.get(variant, {}).get("p50_ms") for variant in VARIANTS}
    spread = "one seed"
    if len(top1) > 1:
        spread = f"{statistics.mean(top1):.1f} ({min(top1):.1f}..{max(top1):.1f})"
    return [
        str(len(rows)),
        f"{top1[0]:.1f} ({low:.1f}..{high:.1f})",
        spread,
        f"{int8:.1f}",
        *(f"{value:.2f} ms" if value else "not run" for value in ms.values()),
        f"{int8 / ms['int8']:.1f}" if ms["int8"] else "not run",
        _lost(robust),
    ]


def _lost(robust: dict[str, Any]) -> str:
    """Return the mean drop over all perturbations, in points."""
    if not robust:
        return "not run"
    return f"{100 * statistics.mean(one['drop'] for one in robust['robustness'].values()):.1f}"


def rows_of(family: str) -> list[dict[str, Any]]:
    """Return the rows of a family that are there, by seed."""
    return [row for seed in range(SEEDS) if (row := _read(row_path(family, seed)))]


def row_path(family: str, seed: int) -> Path:
    """Return the file of a row."""
    return RESULTS / f"{slug(family)}-s{seed}.json"


def slug(family: str) -> str:
    """Return a family's name as a part of file names."""
    return family.replace(" ", "_")


def finedge(*arguments: object) -> dict[str, Any]:
    """Run a command of finedge and return the JSON it prints; stop where it fails."""
    command = [sys.executable, "-m", "finedge", *map(str, arguments)]
    log.info("%s", " ".join(command[2:]))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _keep(study: Study, path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")
    if study.commit:
        git("add", str(path))
        git("commit", "--quiet", "--message", f"Measured: {path.stem}", "--", str(path))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def git(*arguments: str) -> str:
    """Return what git prints."""
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tyro.extras.subcommand_cli_from_dict({"run": run, "table": table})
