"""Options of the command line change a recipe, and what belongs to a key changes with it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from finedge.errors import UsageError
from finedge.train.options import parse_options
from finedge.train.recipe import Recipe, recipe_from
from finedge.train.request import RecipeOptions


def override(recipe: Recipe, options: RecipeOptions) -> Recipe:
    """Return `recipe` with the options that were given; model options are added to the recipe's.

    A key with an option of its own, such as --lr, has the value of that option where both it and
    --set are given. A new `size` brings its own `resize`, and a `train_size` in proportion; one
    below `start_size` is the side from the first epoch on. The cosine schedule has no milestones.
    A new `epochs` moves the milestones of a step schedule, and its warm-up, in proportion. At most
    a quarter of it are `head_epochs`, and a quarter `full_epochs`.

    Raises:
        UsageError: an unknown key, a value of a wrong type or range, or a word that is not
            KEY=VALUE.
    """
    changes = _changes(recipe, options)
    changed = recipe_from({**recipe.to_json(), **changes})
    factor = changed.epochs / recipe.epochs
    if changed.schedule != "step" or factor == 1:
        return changed
    scaled: dict[str, Any] = {
        "milestones": tuple(factor * epoch for epoch in recipe.milestones),
        "warmup_epochs": factor * recipe.warmup_epochs,
    }
    return replace(changed, **{name: v for name, v in scaled.items() if name not in changes})


def _changes(recipe: Recipe, options: RecipeOptions) -> dict[str, Any]:
    """Return {recipe key: new value} as plain data; the values are not checked."""
    changes = parse_options(options.set, flag="--set")
    if "options" in changes:
        raise UsageError("--set options", expected="a key of the recipe", fix="--option KEY=VALUE")
    names = {f.name for f in fields(Recipe)}
    own = {name: value for name, value in vars(options).items() if name in names}
    # 0 is a value; None and False, of a flag, mean that the option was left out.
    changes |= {name: v for name, v in own.items() if v is not None and v is not False}
    changes["options"] = {**recipe.options, **parse_options(options.option, flag="--option")}
    if "size" in changes:
        changes.setdefault("resize", 0)
        changes.setdefault("train_size", _in_proportion(recipe, changes["size"]))
        if _is_below(changes["train_size"] or changes["size"], recipe.start_size):
            changes.setdefault("start_size", 0)
    if isinstance(changes.get("epochs"), int):
        quarter = max(0, changes["epochs"] // 4)
        for name in ("head_epochs", "full_epochs"):
            changes.setdefault(name, min(getattr(recipe, name), quarter))
    if changes.get("schedule") == "cosine":
        changes.setdefault("milestones", [])
    return changes


def _is_below(value: object, limit: int) -> bool:
    return isinstance(value, int) and value < limit


def _in_proportion(recipe: Recipe, size: object) -> int:
    """Return the training side of a recipe at another `size`: 0, or a multiple of 16."""
    if not recipe.train_size or not isinstance(size, int):
        return 0
    return min(size, max(32, round(size * recipe.train_size / recipe.size / 16) * 16))
