"""The plan of a run: model, backbone, weights and recipe, with every default filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from finedge.errors import UsageError
from finedge.spec import Method, Preprocess, Rule
from finedge.train import backbones
from finedge.train.models import FineGrained, build_model, default_options, names, require_options
from finedge.train.recipe import Recipe, read_recipe, recipe_from
from finedge.train.recipe_change import override
from finedge.train.recipe_file import DEFAULT_RECIPE
from finedge.train.request import TrainingRequest
from finedge.train.start import is_run, start_from


@dataclass(frozen=True)
class RunPlan:
    """All that makes a run, except its images and its teacher."""

    model: str
    backbone: str
    weights: str
    recipe: Recipe

    @property
    def pretrained(self) -> bool:
        """Whether the backbone starts with weights of its own."""
        return self.weights != "none"

    @property
    def preprocess(self) -> Preprocess:
        """The backbone's preprocessing at the sizes of the recipe."""
        usual, recipe = backbones.entry(self.backbone).preprocess, self.recipe
        return replace(
            usual,
            resize=recipe.resized,
            crop=recipe.size,
            method=cast(Method, recipe.method or usual.method),
            rule=cast(Rule, recipe.rule or usual.rule),
        )

    def build(self, *, labels: Sequence[str]) -> FineGrained:
        """Build the model on the CPU, with the weights that it starts from.

        Args:
            labels: in the order of the classes.

        Raises:
            UsageError: the model does not take the options of the recipe, or the weights are of a
                run with another backbone.
            DataError: the weights are of a damaged run.
        """
        run = Path(self.weights) if is_run(self.weights) else None
        options = self.recipe.options
        try:
            model = build_model(
                self.model,
                num_classes=len(labels),
                backbone=self.backbone,
                weights="none" if run else self.weights,
                **options,
            )
        except (TypeError, ValueError) as error:
            if not options:
                raise
            raise UsageError(
                f"model '{self.model}' cannot be built with the options {dict(options)}: {error}",
                fix="look at --option and [options]",
            ) from error
        if run:
            start_from(model, run, name=self.model, labels=labels)
        return model


def planned(request: TrainingRequest) -> RunPlan:
    """Return the plan of a new run.

    Raises:
        UsageError: no images, or a wrong model, backbone, recipe or override.
    """
    if request.run.data is None:
        raise UsageError(
            "no --data",
            expected="a folder of images",
            fix="finedge data render DIR makes one to try with",
        )
    options = request.model
    name = options.model or "plain"  # no other beats it for its time: docs/results.md
    weights = str(options.weights or "imagenet")
    recipe = _of_model(read_recipe(_recipe_name(request)), name)
    if weights == "none" and not request.recipe.quick:
        recipe = replace(recipe, freeze=0, head_epochs=0)  # no features to keep
    plan = RunPlan(
        name,
        options.backbone or "efficientnet_lite0",
        weights,
        override(recipe, request.recipe),
    )
    # Before the images are read: a wrong name is reported at once.
    require_options(plan.model, plan.recipe.options)
    backbones.entry(plan.backbone)
    return plan


def _of_model(recipe: Recipe, model: str) -> Recipe:
    """Return a recipe without the options that other models have, and `model` has not.

    So one recipe trains a model and the baseline that it is compared with.
    """
    known = default_options(model)
    others = {option for name in names() for option in default_options(name)} - set(known)
    return replace(recipe, options={k: v for k, v in recipe.options.items() if k not in others})


def _recipe_name(request: TrainingRequest) -> str:
    return request.recipe.recipe or ("quick" if request.recipe.quick else DEFAULT_RECIPE)


def recorded_plan(record: Mapping[str, Any]) -> RunPlan:
    """Return the plan of a recorded run."""
    model = record["model"]
    recipe = recipe_from(record["recipe"])
    return RunPlan(model["name"], model["backbone"], model["weights"], recipe)
