"""What a sweep trains: groups, settings and runs, each known by a digest of all that shapes it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finedge.errors import UsageError
from finedge.train.models import default_options, entry
from finedge.train.plan import RunPlan, planned
from finedge.train.recipe import Recipe
from finedge.train.request import ModelOptions, RecipeOptions, RunOptions, TrainingRequest
from finedge.train.sweep.file import SweepFile

OPTION = "options."  # begins the keys of a search that are options of the model
# Keys of a recipe that stage `frozen` does not follow. They must have their default: a row would
# otherwise name a setting that it was not trained with.
UNUSED = (
    *("accumulate", "class_weights", "cutmix", "ema", "freeze", "freeze_norm"),
    *("full_epochs", "full_lr", "head_epochs", "keep", "mixup", "patience", "sampling"),
)
DATA = "{data}"  # stands for the name of the data set in the weights of a sweep
SEED = 0  # of the search; the chosen setting has seeds from here on
DIGITS = 12  # of a digest


@dataclass(frozen=True)
class Group:
    """One table: families are compared on the same images, at the same size."""

    data: str
    recipe: str
    backbone: str
    size: int  # 0: the recipe's

    @property
    def folder(self) -> Path:
        """The place of its rows."""
        return Path(self.data, Path(self.recipe).stem, f"{self.backbone}-{self.size or 'recipe'}")


@dataclass(frozen=True)
class Setting:
    """A family in a group, with one point of its search.

    Attributes:
        stage: of the sweep.
        group: the table that it belongs to.
        family: its name.
        model: of the family.
        weights: of the backbone.
        options: of the model, those of the search included.
        changes: keys of the recipe, those of the search included.
        point: what the search chose, {key: value}.
    """

    stage: str
    group: Group
    family: str
    model: str
    weights: str
    options: Mapping[str, Any]
    changes: Mapping[str, Any]
    point: Mapping[str, Any]

    def request(self, *, data: Path, out: Path, seed: int) -> TrainingRequest:
        """Return the request that `finedge train` would get."""
        recipe = RecipeOptions(
            recipe=self.group.recipe,
            size=self.group.size or None,
            seed=seed,
            option=_words(self.options),
            set=_words(self.changes),
        )
        model = ModelOptions(self.model, self.group.backbone, self.weights)
        return TrainingRequest(RunOptions(out, data), model, recipe)

    def plan(self, seed: int) -> RunPlan:
        """Return model and recipe with every default filled in.

        Raises:
            UsageError: a wrong key or option, or a key that the stage does not follow.
        """
        plan = planned(self.request(data=Path(), out=Path(), seed=seed))
        if self.stage == "frozen":
            _require_followed(plan.recipe, family=self.family)
        return plan

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digits that stand for all that shapes the result, but for the seed.

        Keys of the recipe that have their default value do not count, so that a new key keeps the
        rows of older versions. Options of the model that are not given count too, because a default
        can change; but not those that do what was done before they existed.
        """
        plan = self.plan(SEED)
        defaults = Recipe().to_json()
        recipe = {k: v for k, v in plan.recipe.to_json().items() if v != defaults[k]}
        former = entry(plan.model).former
        usual = {k: v for k, v in default_options(plan.model).items() if former.get(k, ...) != v}
        recipe["options"] = {**usual, **plan.recipe.options}
        parts = (self.stage, self.group.data, plan.model, plan.backbone, plan.weights, recipe)
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True)
class SweepRun:
    """One training: a setting with a seed."""

    setting: Setting
    seed: int

    @property
    def path(self) -> Path:
        """The place of its files below the folder of a sweep, without a suffix."""
        name = self.setting.family.replace(" ", "_").replace("/", "_")
        group = self.setting.group
        return group.folder / f"{name}-{self.setting.digest}-s{self.seed}"


def groups(file: SweepFile) -> list[Group]:
    """Return the tables of a sweep, in the order of the file."""
    families = file.families.values()
    recipes = dict.fromkeys(f.recipe for f in families if f.recipe)
    names = dict.fromkeys(f.backbone for f in families if f.backbone)
    usual = any(not f.recipe for f in families), any(not f.backbone for f in families)
    axes = (
        file.data,
        [*(file.recipes if usual[0] else ()), *recipes],
        [*(file.backbones if usual[1] else ()), *names],
        file.sizes or (0,),
    )
    every = (Group(*axis) for axis in itertools.product(*axes))
    return [
        g for g in dict.fromkeys(every) if any(_belongs(file, name, g) for name in file.families)
    ]


def settings(file: SweepFile, group: Group) -> dict[str, list[Setting]]:
    """Return {family: its settings} of a group, in the order of the file."""
    members = [name for name in file.families if _belongs(file, name, group)]
    return {name: list(_settings(file, group, name)) for name in members}


def search_runs(file: SweepFile, group: Group) -> list[SweepRun]:
    """Return the runs of the search: every setting of every family with the first seed."""
    return [SweepRun(s, SEED) for each in settings(file, group).values() for s in each]


def _belongs(file: SweepFile, name: str, group: Group) -> bool:
    family = file.families[name]
    recipes = (family.recipe,) if family.recipe else file.recipes
    names = (family.backbone,) if family.backbone else file.backbones
    return group.recipe in recipes and group.backbone in names


def _settings(file: SweepFile, group: Group, name: str) -> Iterator[Setting]:
    family, grid = file.families[name], file.grid(name)
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        options = {k.removeprefix(OPTION): v for k, v in point.items() if k.startswith(OPTION)}
        changes = {k: v for k, v in point.items() if not k.startswith(OPTION)}
        yield Setting(
            stage=file.stage,
            group=group,
            family=name,
            model=family.model,
            weights=file.weights.replace(DATA, group.data),
            options={**family.options, **options},
            changes={**file.set, **family.set, **changes},
            point=point,
        )


def _require_followed(recipe: Recipe, *, family: str) -> None:
    """Refuse a key of the recipe that training on frozen features would leave out."""
    for key in UNUSED:
        value, off = getattr(recipe, key), getattr(Recipe(), key)
        if value != off:
            raise UsageError(
                f"family '{family}': {key} = {value} in a sweep on frozen features",
                expected=f"{off}: only the layers after the backbone are trained, on cached maps",
                fix=f"{key} = {json.dumps(off)} below [set]",
            )


def _words(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{key}={json.dumps(value)}" for key, value in values.items())
