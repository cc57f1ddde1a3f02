"""Records of the stages in a bundle, with the fields that later stages read.

Each field may be missing, so that bundles of every version open. A record is checked when it is
read, and unknown fields are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from finedge.confidence import Confidence
from finedge.early_exit import MAX_EXITS, ExitRule, Segments
from finedge.errors import BundleError
from finedge.label_tree import LabelTreeRecord
from finedge.schema import (
    Constraint,
    Count,
    Digest,
    Misfit,
    Share,
    Text,
    at_most,
    between,
    decode,
)

Record = TypeVar("Record")
Path_ = Annotated[Text, Constraint(lambda text: text and "\0" not in text, "the path of a folder")]
Seed = Annotated[int, between(0, 2**63 - 1)]
Difference = Annotated[float, between(-1, 1)]
ACCURACY = "accuracy"  # the key of `CalibrationRecord.accuracy`
# The key of int8 in `CalibrationRecord.accuracy` as CPUs whose products saturate compute it.
REDUCED = "int8-reduced"


@dataclass(frozen=True)
class TrainingData:
    """The training data of a run, as run.json and a bundle record it.

    Attributes:
        root: the folder, at the time of training.
        layout: the layout that was read.
        seed: the seed of the cut, where there was one.
        cut: how val or test were cut; later versions than 0.1 store it in split.json too.
    """

    root: Path_ | None = None
    layout: Text = ""
    seed: Seed = 0
    cut: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """The record `train`: the data, and the folder of the run when it was exported."""

    data: TrainingData = TrainingData()
    run: Path_ | None = None


@dataclass(frozen=True)
class ParityRecord:
    """How far a file is from PyTorch; `own_error` is PyTorch's own in float32, 0 if unknown."""

    own_error: Annotated[float, between(0, 1e30)] = 0.0


@dataclass(frozen=True)
class CostRecord:
    """The multiply-accumulates of a frame by precision; empty where they were not counted."""

    macs: Mapping[str, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportRecord:
    """The record `export`: the parity of each file that was written, and the model's cost.

    `segments` says how the models are cut; it is empty in bundles without `--segments`.
    """

    parities: Mapping[str, ParityRecord] = field(default_factory=dict)
    attention_cost: CostRecord = CostRecord()
    segments: Segments = field(default_factory=Segments)


@dataclass(frozen=True)
class QuantizationRecord:
    """Which nodes of a file compute in INT8, and why the others stay in float, by node."""

    int8: tuple[Text, ...] = ()
    stays_float: Mapping[str, Text] = field(default_factory=dict)


@dataclass(frozen=True)
class AccuracyCost:
    """What a variant costs in accuracy: compared with fp32 on the same held-out images.

    Attributes:
        n: the number of images.
        top1: the share of them that the variant names rightly.
        top1_change: the difference from fp32's share.
        top1_change95: its 95 % interval.
        mcnemar_p: the p-value that both are equally good.
        flips: images that got another answer.
        split: the split of the images.
    """

    n: Count
    top1: Share
    top1_change: Difference
    top1_change95: tuple[Difference, Difference]
    mcnemar_p: Share
    flips: Count
    split: Text = ""


@dataclass(frozen=True)
class MethodRecord:
    """An INT8 file against its float model, on the images that decided.

    Attributes:
        method: the collector of its ranges.
        images: how many images gave the ranges.
        kl: the mean KL divergence of its probabilities from those of the float model, in nats.
        agreement: the share of images on which both name the same class.
        top1: the share of images whose true class it names.
        n: how many images decided.
    """

    method: Text
    images: Count
    kl: Annotated[float, between(0, 1e6)]
    agreement: Share
    top1: Share
    n: Count


@dataclass(frozen=True)
class DecisionRecord:
    """Why an INT8 file was chosen.

    Attributes:
        reason: the rule and its result in words.
        float_top1: top-1 of the float model on the same images.
        methods: each method that was compared.
        curve: the chosen method with fewer or more calibration images.
        attention: the modes of INT8 attention that were compared.
        images_sha256: the digests of the images that decided.
    """

    reason: Text = ""
    float_top1: Share | None = None
    methods: Annotated[tuple[MethodRecord, ...], at_most(100)] = ()
    curve: Annotated[tuple[MethodRecord, ...], at_most(100)] = ()
    attention: Annotated[tuple[MethodRecord, ...], at_most(100)] = ()
    images_sha256: tuple[Digest, ...] = ()


@dataclass(frozen=True)
class CalibrationRecord:
    """The record `calibrate`.

    Attributes:
        method: the collector of the ranges.
        decision: why that one; empty where nothing was compared.
        confidence: the fitted temperature and threshold, by variant.
        accuracy: what each variant costs in accuracy, by variant; `REDUCED` is int8 on CPUs whose
            products saturate. Bundles of earlier versions have none.
        placements: the nodes that compute in INT8, by file.
        images_sha256: the digests of the images that gave the ranges.
        exits: when a frame leaves early, by variant and in running order; also for `REDUCED`.
            Only bundles with segments have them.
        label_tree: groups of classes and when they are named; empty without `--label-tree`.
    """

    confidence: Mapping[str, Confidence | None] = field(default_factory=dict)
    accuracy: Mapping[str, AccuracyCost] = field(default_factory=dict)
    placements: Mapping[str, QuantizationRecord] = field(default_factory=dict)
    images_sha256: tuple[Digest, ...] = ()
    exits: Mapping[str, Annotated[tuple[ExitRule, ...], at_most(MAX_EXITS)]] = field(
        default_factory=dict
    )
    method: Text = ""
    decision: DecisionRecord = field(default_factory=DecisionRecord)
    label_tree: LabelTreeRecord = field(default_factory=LabelTreeRecord)


def read_stage_record(
    kind: type[Record],
    provenance: Mapping[str, Any],
    *,
    stage: str,
    name: str,
    fix: str,
) -> Record:
    """Return the record of a stage, or the defaults where there is none.

    Raises:
        BundleError: it is damaged. The error calls the bundle `name`; `fix` is the command that
            writes the record again.
    """
    try:
        return decode(kind, provenance.get(stage, {}), at=f"provenance.{stage}")
    except Misfit as error:
        raise BundleError(f"{name}: {error}", expected=error.expected, fix=fix) from error
