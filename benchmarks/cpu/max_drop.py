"""Whether the ranking finds a ruined layer, and what `--max-drop` gains and costs.

    python benchmarks/cpu/max_drop.py poison BUNDLE DATA
    python benchmarks/cpu/max_drop.py search BUNDLE DATA [--poison N]
    python benchmarks/cpu/max_drop.py compare BUNDLE DATA [--poison N]
    python benchmarks/cpu/max_drop.py views BUNDLE DATA

`poison` ruins one layer after another (poison.py) and ranks the layers of each such model: rows in
benchmarks/results/max_drop/poison-NAME.json. `search` calibrates with all layers in INT8 and with
--max-drop 1.0, and measures both on the test split: benchmarks/results/max_drop/NAME.json. With
`--poison N` the model has N ruined layers: NAME-poisoned.json. `compare` searches four times, with
the shipped search and with `greedy`, in two orders (KL for a millisecond, KL alone):
searches-NAME.json, with each choice that a search tried. Biases are not corrected there: it would
double the time. `views` compares the decision set, its hard views and the test split:
views-NAME.json. A row that is there is not made again. Nothing is written into the bundle.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tyro
from numpy.typing import NDArray
from poison import Injection, places, poisoned

from finedge.bundle import Bundle
from finedge.calib.decision.compare import Decision
from finedge.calib.decision.damage import Damage, first_images, measure_damage, with_hard_views
from finedge.calib.decision.decision_set import DecisionImages, Samples, draw_samples
from finedge.calib.int8_files import CalibratedModel, calibrate_model, cpu_model, float_model
from finedge.calib.plan import QuantizationPlan
from finedge.calib.ranges.calibration_set import CalibrationSet
from finedge.calib.ranges.observe import collect_tables
from finedge.calib.search.outcome import keep_within
from finedge.calib.search.search import by_gain, greedy, restore_costs
from finedge.calib.search.search import search as shipped_search
from finedge.calib.search.timing import frame_times
from finedge.calib.search.trials import Point, Trials
from finedge.calib.sensitivity.measure import rank_units, units_of
from finedge.data import DataSet
from finedge.files import write_text
from finedge.graph.edit import copied
from finedge.graph.inlining import inline
from finedge.image import read_image
from finedge.measure import mcnemar
from finedge.preprocess import preprocess
from finedge.runtime.evaluate.labelled import bundle_dataset
from finedge.runtime.machine.cpu import cpu_name

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results/max_drop"
WEIGHTS, ACTIVATIONS = 14, 6  # injections of each kind: 20
POISON_IMAGES = 8  # each with its hard view
CALIBRATION_IMAGES = 32  # for a poisoned model
CLIPPED = 5.9  # ReLU6 may cut off a channel that comes so far: the function would change
LEAVE_ONE_OUT = (0, WEIGHTS)  # injections that are ranked in the other way too
BATCH = 8
SMALL_MARGIN = 0.5  # between the two largest scores
COMPARED_IMAGES, COMPARED_RANKING_IMAGES = 128, 8  # each with its hard view


@dataclass(frozen=True)
class Material:
    """A bundle, its float model and its images."""

    bundle: Bundle
    model: onnx.ModelProto
    samples: Samples
    data: DataSet

    @property
    def frames(self) -> NDArray[np.uint8]:
        """The first calibration images, preprocessed."""
        items = self.samples.calibration.items[:CALIBRATION_IMAGES]
        return np.stack(
            [preprocess(read_image(i.path), self.bundle.spec.preprocess) for i in items]
        )


def poison(
    bundle: tyro.conf.Positional[Path],
    data: tyro.conf.Positional[Path],
    *,
    one_way: bool = False,
) -> None:
    """Rank the layers of 20 models, each with one ruined layer.

    Args:
        bundle: a bundle.
        data: the images that it was trained on.
        one_way: leave out the other way to rank, all of INT8 but one unit.
    """
    material = load(bundle, data)
    images = small_images(material)
    path = RESULTS / f"poison-{bundle.stem}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.is_file() else []
    for number, injection in enumerate(injections(material)):
        both = number in LEAVE_ONE_OUT and not one_way
        if number >= len(rows) or (both and "leave_one_out" not in rows[number]):
            row = poison_row(material, injection, images, both=both)
            rows[number : number + 1] = [row]
            first = sum(r["rank"] == 1 for r in rows)
            keep(path, {"first": first, "of": len(rows), "rows": rows})
            print(json.dumps(row), flush=True)


def search(
    bundle: tyro.conf.Positional[Path],
    data: tyro.conf.Positional[Path],
    *,
    poison: int = 0,
    max_drop: float = 1.0,
) -> None:
    """Measure a model in INT8 without and with the search, on its test split.

    Args:
        bundle: a bundle.
        data: the images that it was trained on.
        poison: the number of layers to ruin first.
        max_drop: the budget in points.
    """
    path = RESULTS / f"{bundle.stem}{'-poisoned' if poison else ''}.json"
    if path.is_file():
        return
    material = load(bundle, data)
    model, ruined = ruined_model(material, poison)
    calibrated = calibrate(material, model)
    images = with_hard_views(decision_sample(material), material.bundle.spec.preprocess)
    start = time.process_time()
    outcome = keep_within(calibrated, QuantizationPlan(), images=images, max_drop=max_drop)
    seconds = time.process_time() - start
    int8 = {
        "all_int8": cpu_model(calibrated, QuantizationPlan()),
        "picked": cpu_model(calibrated, outcome.plan),
    }
    row = {
        "poisoned": [asdict(i) for i in ruined],
        "search_cpu_s": round(seconds, 1),
        **outcome.to_json(),
        "test": test_rows(material, model, int8),
    }
    keep(path, row)
    print(json.dumps(row["test"]), outcome.points[outcome.picked].to_json())


def compare(
    bundle: tyro.conf.Positional[Path],
    data: tyro.conf.Positional[Path],
    *,
    poison: int = 3,
    max_drop: float = 1.0,
) -> None:
    """Search in four ways on one model, and time and test what they end at.

    Args:
        bundle: a bundle.
        data: the images that it was trained on.
        poison: the number of layers to ruin first.
        max_drop: the budget in points.
    """
    path = RESULTS / f"searches-{bundle.stem}.json"
    if path.is_file():
        return
    material = load(bundle, data)
    model, ruined = ruined_model(material, poison)
    calibrated, plan = calibrate(material, model), QuantizationPlan(bias_correction=False)
    sample = first_samples(decision_sample(material), COMPARED_IMAGES)
    images = with_hard_views(sample, material.bundle.spec.preprocess)
    few = first_images(images, count=COMPARED_RANKING_IMAGES)
    units, spec = units_of(calibrated, plan), material.bundle.spec
    ranking = rank_units(calibrated, plan, units=units, decision=Decision(model, spec, few))
    trials = Trials(calibrated, plan, units, Decision(model, spec, images))
    orders = {
        "kl for a millisecond": by_gain(ranking, restore_costs(trials, ranking)),
        "kl": [s.unit for s in ranking],
    }
    rows, ends = [], []
    for order, ordered in orders.items():
        for name, function in (("shipped", shipped_search), ("greedy", greedy)):
            record = Record(calibrated, plan, units, trials.decision, all_trials=trials)
            end = function(record, ordered, budget=max_drop / 100)
            rows.append({"order": order, "search": name, "trials": len(record.points)})
            rows[-1]["tried"] = [trial(point, max_drop / 100) for point in record.points.values()]
            ends.append(end or trials.try_float(frozenset()))
            print(rows[-1], end and end.to_json(), flush=True)
    every = [trials.try_float(frozenset()), *ends]
    int8 = {"/".join(point.in_float): trials.model(set(point.in_float)) for point in every}
    *times, fp32_ms = frame_times([*int8.values(), model], images.frames[0])
    ms, test = dict(zip(int8, times, strict=True)), test_rows(material, model, int8)
    for row, point in zip(rows, ends, strict=True):
        key = "/".join(point.in_float)
        row |= {**point.to_json(), "within": point.damage.within(max_drop / 100)}
        row |= {"ms": round(ms[key], 4), "test": test[key]}
    content = {
        "poisoned": [asdict(i) for i in ruined],
        "images": COMPARED_IMAGES,
        "fp32_ms": round(fp32_ms, 4),
        "fp32_top1": test["fp32_top1"],
        "all_int8": {**every[0].to_json(), "ms": round(ms[""], 4), "test": test[""]},
        "searches": rows,
    }
    keep(path, content)


def views(
    bundle: tyro.conf.Positional[Path],
    data: tyro.conf.Positional[Path],
) -> None:
    """Measure how sure the float model is, and what INT8 changes, on three sets of images.

    Args:
        bundle: a bundle.
        data: the images that it was trained on.
    """
    path = RESULTS / f"views-{bundle.stem}.json"
    if path.is_file():
        return
    material = load(bundle, data)
    int8 = cpu_model(calibrate(material, material.model), QuantizationPlan())
    decision = with_hard_views(decision_sample(material), material.bundle.spec.preprocess)
    half = len(decision.labels) // 2
    sets = {
        "as they are": DecisionImages(decision.frames[:half], decision.labels[:half]),
        "hard views": DecisionImages(decision.frames[half:], decision.labels[half:]),
        "test": test_images(material),
    }
    rows = {name: view_row(material, int8, images) for name, images in sets.items()}
    keep(path, {"margin": SMALL_MARGIN, "sets": rows})
    print(json.dumps(rows, indent=1))


def view_row(material: Material, int8: onnx.ModelProto, images: DecisionImages) -> dict[str, float]:
    """Compare INT8 with float on a set; errors are standard errors."""
    decision = Decision(material.model, material.bundle.spec, images)
    damage, n = measure_damage(decision, decision.scores(int8)), len(images.labels)
    two_largest = np.sort(decision.float_scores, axis=1)[:, -2:]
    change = damage.comparison.float_correct.astype(int) - damage.comparison.correct.astype(int)
    row = {
        "n": n,
        "float_top1": float(damage.comparison.float_correct.mean()),
        "small_margins": float((np.diff(two_largest, axis=1) < SMALL_MARGIN).mean()),
        "changed": 1 - damage.comparison.agreement,
        "drop": damage.drop,
        "drop_error": float(change.std()) / n**0.5,
        "expected_drop": float(damage.expected.mean()),
        "expected_drop_error": float(damage.expected.std()) / n**0.5,
    }
    return {name: round(value, 5) for name, value in row.items()}


@dataclass
class Record(Trials):
    """Remembers what one search tried; `all_trials` measures each model once for all searches."""

    all_trials: Trials = field(kw_only=True)

    def try_float(self, names: Set[str]) -> Point:
        """Return the point with the units `names` in float."""
        return self.points.setdefault(frozenset(names), self.all_trials.try_float(names))


def trial(point: Point, budget: float) -> dict[str, Any]:
    """Return what a search saw of one choice of layers, in the order of its trials."""
    numbers = point.damage.to_json()
    return {
        "layers_in_float": len(point.in_float),
        "drop": numbers["drop"],
        "drop_limit": numbers["drop_limit"],
        "within": point.damage.within(budget),
    }


def ruined_model(material: Material, count: int) -> tuple[onnx.ModelProto, list[Injection]]:
    """Return the float model with `count` ruined layers, and where they are."""
    model, ruined = material.model, spread(injections(material), count)
    if not ruined:
        return model, []
    table = calibrate(material, model).tables["max"]
    for injection in ruined:
        model = poisoned(model, injection, table=table)
    return model, ruined


def first_samples(sample: CalibrationSet, count: int) -> CalibrationSet:
    """Return the first `count` images of a set."""
    return CalibrationSet(sample.items[:count], sample.digests[:count])


def load(bundle: Path, data: Path) -> Material:
    """Open a bundle and its images."""
    opened = Bundle.load(bundle)
    dataset = bundle_dataset(opened, data, new_images="ignore")
    return Material(opened, float_model(opened), draw_samples(dataset), dataset)


def decision_sample(material: Material) -> CalibrationSet:
    """Return the decision set."""
    if material.samples.decision is None:
        raise SystemExit("too few training images")
    return material.samples.decision


def calibrate(material: Material, model: onnx.ModelProto) -> CalibratedModel:
    """Run a float model over all calibration images."""
    spec, sample = material.bundle.spec, material.samples.calibration
    return calibrate_model(model, spec, sample=sample, methods=("max",))


def small_images(material: Material) -> DecisionImages:
    """Return a few decision images with their hard views."""
    few = first_samples(decision_sample(material), POISON_IMAGES)
    return with_hard_views(few, material.bundle.spec.preprocess)


def injections(material: Material) -> list[Injection]:
    """Return 20 places of poison, the same every time: 14 for weights, 6 for activations."""
    rng, chosen = np.random.default_rng(0), []
    for kind, count in (("weight", WEIGHTS), ("activation", ACTIVATIONS)):
        spots = [
            (layer, before, usable)
            for layer, before in places(material.model, kind)
            if len(usable := usable_channels(material, before, kind=kind))
        ]
        for index in range(count):  # from the first layer to the last
            layer, before, usable = spots[index * len(spots) // count]
            chosen.append(Injection(kind, layer, before, int(rng.choice(usable))))
    return chosen


def usable_channels(material: Material, before: str, *, kind: str) -> NDArray[np.intp]:
    """Return the output channels of a convolution that ReLU6 does not cut off, if it is to pass."""
    model = copied(inline(material.model))
    output = next(n.output[0] for n in model.graph.node if n.name == before)
    model.graph.output.append(onnx.ValueInfoProto(name=output))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values = session.run([output], {session.get_inputs()[0].name: material.frames})[0]
    largest = values.max(axis=(0, 2, 3))
    return np.flatnonzero((largest < CLIPPED) & (largest > 0) | (kind == "activation"))


def spread(every: Sequence[Injection], count: int) -> list[Injection]:
    """Return `count` injections of both kinds, at layers of their own."""
    if not count:
        return []
    step = len(every) // count
    return [every[i * step] for i in range(count)]


def poison_row(
    material: Material, injection: Injection, images: DecisionImages, *, both: bool
) -> dict[str, Any]:
    """Ruin one layer, rank the layers, and return where the ruined one is."""
    spec, frames = material.bundle.spec, material.frames
    batches = [frames[i : i + BATCH] for i in range(0, len(frames), BATCH)]
    before = collect_tables(material.model, batches, methods=("max",))["max"]
    model = poisoned(material.model, injection, table=before)
    calibrated = CalibratedModel(model, spec, collect_tables(model, batches, methods=("max",)))
    plan, decision = QuantizationPlan(), Decision(model, spec, images)
    same = Decision(material.model, spec, images).float_scores - decision.float_scores
    units, start = units_of(calibrated, plan), time.process_time()
    ranked = [
        (s.unit.name, s.damage.kl)
        for s in rank_units(calibrated, plan, units=units, decision=decision)
    ]
    row = {
        **asdict(injection),
        "float_difference": float(np.abs(same).max()),
        "rank": rank_of(ranked, injection),
        "kl": [[name, round(kl, 6)] for name, kl in ranked[:4]],
        "cpu_s": round(time.process_time() - start, 1),
    }
    if both:
        row["leave_one_out"] = leave_one_out(Trials(calibrated, plan, units, decision), injection)
    return row


def leave_one_out(trials: Trials, injection: Injection) -> dict[str, Any]:
    """Rank in the other way: the KL with all but one unit in INT8, the smallest first."""
    start = time.process_time()
    everything = trials.try_float(frozenset()).damage.kl
    gains = [
        (unit.name, everything - trials.try_float({unit.name}).damage.kl)
        for unit in trials.units.all
    ]
    gains.sort(key=lambda pair: -pair[1])
    return {
        "rank": rank_of(gains, injection),
        "kl_saved": [[name, round(kl, 6)] for name, kl in gains[:4]],
        "kl_of_all": round(everything, 6),
        "cpu_s": round(time.process_time() - start, 1),
    }


def rank_of(ranked: Sequence[tuple[str, float]], injection: Injection) -> int:
    """Return the place of the ruined layer; a ruined tensor belongs to the layers at both ends."""
    names = [name for name, _ in ranked]
    ends = (
        {injection.layer, injection.before} if injection.kind == "activation" else {injection.layer}
    )
    return 1 + min(names.index(name) for name in ends if name in names)


def test_rows(
    material: Material, model: onnx.ModelProto, int8: dict[str, onnx.ModelProto]
) -> dict[str, Any]:
    """Measure INT8 models against their float model on the whole test split."""
    images = test_images(material)
    decision, labels = Decision(model, material.bundle.spec, images), images.labels
    float_top1 = float((decision.float_scores.argmax(axis=1) == labels).mean())
    rows = {name: paired(measure_damage(decision, decision.scores(m))) for name, m in int8.items()}
    return {"n": len(labels), "fp32_top1": round(float_top1, 6), **rows}


def test_images(material: Material) -> DecisionImages:
    """Return the whole test split, preprocessed."""
    items, prepare = material.data.split("test"), material.bundle.spec.preprocess
    frames = np.stack([preprocess(read_image(i.path), prepare) for i in items])
    return DecisionImages(frames, np.array([i.label for i in items], np.intp))


def paired(damage: Damage) -> dict[str, Any]:
    """Return a paired comparison with its exact p-value."""
    comparison = damage.comparison
    lost = int((comparison.float_correct & ~comparison.correct).sum())
    won = int((~comparison.float_correct & comparison.correct).sum())
    return {
        "top1": round(comparison.top1, 6),
        "drop": round(damage.drop, 6),
        "lost": lost,
        "won": won,
        "mcnemar": round(mcnemar(lost, won), 4),
        "changed": round(1 - comparison.agreement, 6),
        "kl": round(damage.kl, 6),
    }


def keep(path: Path, content: dict[str, Any]) -> None:
    """Write results with the machine and the versions that made them."""
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    made_by = {
        "cpu": cpu_name(),
        "onnxruntime": onnxruntime.__version__,
        "commit": head.stdout.strip(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**made_by, **content}, indent=1) + "\n")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"poison": poison, "search": search, "compare": compare, "views": views}
    )
