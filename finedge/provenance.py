"""Records of the stages in a bundle, with the fields that later stages read.

Each field may be missing, so that bundles of every version open. A record is checked when it is
read, and unknown fields are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from finedge.confidence import Confidence
from finedge.errors import BundleError
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
class ExportRecord:
    """The record `export`: the parity of each file that was written."""

    parities: Mapping[str, ParityRecord] = field(default_factory=dict)


@dataclass(frozen=True)
class QuantizationRecord:
    """Which nodes of a file compute in INT8."""

    int8: tuple[Text, ...] = ()


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
        images_sha256: the digests of the images that decided.
    """

    reason: Text = ""
    float_top1: Share | None = None
    methods: Annotated[tuple[MethodRecord, ...], at_most(100)] = ()
    curve: Annotated[tuple[MethodRecord, ...], at_most(100)] = ()
    images_sha256: tuple[Digest, ...] = ()


@dataclass(frozen=True)
class CalibrationRecord:
    """The record `calibrate`.

    Attributes:
        method: the collector of the ranges.
        decision: why that one; empty where nothing was compared.
        confidence: the fitted temperature and threshold, by variant.
        placements: the nodes that compute in INT8, by file.
        images_sha256: the digests of the images that gave the ranges.
    """

    confidence: Mapping[str, Confidence | None] = field(default_factory=dict)
    placements: Mapping[str, QuantizationRecord] = field(default_factory=dict)
    images_sha256: tuple[Digest, ...] = ()
    method: Text = ""
    decision: DecisionRecord = DecisionRecord()


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
