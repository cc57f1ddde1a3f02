"""A calibration, step by step: the float model of a bundle becomes INT8 files.

Each step is a function of the results before it. Nothing is written.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import onnx

from finedge.bundle import Bundle
from finedge.calib.decision.attention_mode import choose_attention, has_cross_layer_attention
from finedge.calib.decision.compare import Decision
from finedge.calib.decision.decision_set import Samples, draw_samples, load_decision_images, too_few
from finedge.calib.decision.method import choose_method, decision_record, measure_curve
from finedge.calib.int8_files import (
    CalibratedModel,
    CpuModel,
    Int8Files,
    calibrate_model,
    float_model,
    quantize,
)
from finedge.calib.options import Int8Options, QatOptions
from finedge.calib.plan import QuantizationPlan
from finedge.calib.search.choose import choose_plan
from finedge.calib.search.options import SearchOptions
from finedge.calib.step_times import StepTimes
from finedge.data import DataSet
from finedge.provenance import DecisionRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibrationOptions:
    """Everything that a user can say about the INT8 files."""

    int8: Int8Options = field(default_factory=Int8Options)
    search: SearchOptions = field(default_factory=SearchOptions)
    qat: QatOptions = field(default_factory=QatOptions)


@dataclass(frozen=True)
class Calibration:
    """The INT8 files of a bundle, the images that they come from, and what was decided.

    Attributes:
        int8: the files.
        samples: the images.
        decision: the methods and modes that were compared.
        search: the record of `--max-drop` or `--pick`; empty without them.
        qat: the record of the fine-tuning; empty without it.
    """

    int8: Int8Files
    samples: Samples
    decision: DecisionRecord
    search: Mapping[str, Any]
    qat: Mapping[str, Any] = field(default_factory=dict)


def make_int8(
    bundle: Bundle, data: DataSet, *, options: CalibrationOptions, times: StepTimes | None = None
) -> Calibration:
    """Make the INT8 files of a bundle.

    Args:
        bundle: is not changed.
        data: the images the model was trained on.
        options: how the files are made.
        times: gets the time of each step.

    Raises:
        FinedgeError: of any kind, by the step that fails; see the modules of the steps.
    """
    times = times or StepTimes()
    model = float_model(bundle)
    if options.qat.qat is None:
        with times.step("images"):
            samples = _draw(model, data, options)
        return _calibrate(model, bundle, samples, options=options, times=times)
    from finedge.calib.qat.fine_tuned import check_fine_tuned, fine_tuned_model, open_run

    run = open_run(bundle, options.qat.qat)  # before any image is read
    with times.step("images"):
        samples = _draw(model, data, options)
    make = partial(_calibrate, bundle=bundle, samples=samples, options=options, times=times)
    plain = make(model)
    with times.step("qat"):
        tuned = fine_tuned_model(
            bundle, plain.int8, run=run, data=data, samples=samples, options=options.qat
        )
    made = make(tuned.model)
    check = check_fine_tuned(tuned, made.int8, samples, preprocess=bundle.spec.preprocess)
    return replace(made, qat=check)


def _draw(model: onnx.ModelProto, data: DataSet, options: CalibrationOptions) -> Samples:
    """Draw the images; those of the decision set only where there is something to decide."""
    int8 = options.int8
    decides = int8.decides or options.search.decides or has_cross_layer_attention(model)
    return draw_samples(
        data,
        images=int8.images,
        curve_images=max(int8.sizes),
        decision_images=int8.decision_images if decides else 0,
        seed=int8.seed,
    )


def _calibrate(
    model: onnx.ModelProto,
    bundle: Bundle,
    samples: Samples,
    *,
    options: CalibrationOptions,
    times: StepTimes,
) -> Calibration:
    """Run the pass over the images, decide, and quantize."""
    calibrated = calibrate_model(
        model,
        bundle.spec,
        sample=samples.calibration,
        methods=options.int8.methods,
        sizes=options.int8.sizes,
        corrects_biases=options.int8.bias_correction,
        times=times,
    )
    choices = _Choices(calibrated, samples)
    with times.step("method"):
        plan, record = choices.method(options.int8)
    with times.step("attention"):
        plan, record, ready = choices.attention(plan, record)
    with times.step("search"):
        choice = choose_plan(
            bundle, calibrated, plan, decision=samples.decision, options=options.search
        )
    with times.step("files"):
        int8 = quantize(calibrated, choice.plan, ready=ready)
    return Calibration(int8, samples, record, choice.record)


@dataclass(frozen=True)
class _Choices:
    """What the decision set decides before the search for layers in float."""

    calibrated: CalibratedModel
    samples: Samples

    @cached_property
    def _decision(self) -> Decision | None:
        if self.samples.decision is None:
            return None
        images = load_decision_images(self.samples.decision, self.calibrated.spec.preprocess)
        return Decision(self.calibrated.model, self.calibrated.spec, images)

    def method(self, options: Int8Options) -> tuple[QuantizationPlan, DecisionRecord]:
        """Choose the method and measure the curve, where an option asks for it."""
        if not options.decides:
            return options.plan, DecisionRecord()
        if self._decision is None:
            return options.plan, DecisionRecord(too_few(options.plan.method))
        choice = choose_method(self.calibrated, self._decision, plan=options.plan)
        log.info("method %s: %s", choice.plan.method, choice.reason)
        curve = measure_curve(self.calibrated, self._decision, plan=choice.plan)
        images, sample = self.calibrated.tables.images, self.samples.decision
        digests = sample.digests if sample else ()
        return choice.plan, decision_record(choice, images=images, curve=curve, digests=digests)

    def attention(
        self, plan: QuantizationPlan, record: DecisionRecord
    ) -> tuple[QuantizationPlan, DecisionRecord, CpuModel | None]:
        """Choose how much of cross-layer attention is INT8, where there is any.

        Return also the model that was made for it.
        """
        if not has_cross_layer_attention(self.calibrated.model) or self._decision is None:
            return plan, record, None
        chosen, choice = choose_attention(self.calibrated, plan, decision=self._decision)
        sample = self.samples.decision
        digests = sample.digests[: len(choice.lost)] if sample else ()
        record = replace(
            record,
            attention=choice.records(self.calibrated.tables.images),
            images_sha256=record.images_sha256 or digests,
        )
        return chosen.plan, record, chosen
