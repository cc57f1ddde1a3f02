"""The file of a sweep: TOML, read into frozen records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from finedge.errors import FinedgeError, UsageError, nearest
from finedge.schema import Constraint, Misfit, Text, between, decode, is_plain_name
from finedge.train import backbones, models
from finedge.train.recipe_file import DEFAULT_RECIPE, read_toml

MAX_NAME = 100  # characters of a family's name: more do not fit the name of a file
FAMILY_NAME = f"a name of 1 to {MAX_NAME} printable characters without '|'"
Stage = Literal["frozen", "fine-tuned"]
Names = Annotated[tuple[Text, ...], Constraint(lambda names: len(names) > 0, "at least one name")]
DataNames = Annotated[
    Names, Constraint(lambda names: all(map(is_plain_name, names)), "names without a slash")
]
Values = Annotated[
    tuple[Any, ...],
    Constraint(lambda values: len(values) > 0, "a list of at least one value"),
    # A value that is tried twice would hide that a family has fewer settings than the others.
    Constraint(lambda values: len(set(map(repr, values))) == len(values), "each value once"),
]
# It becomes a part of the name of a file, and a cell of a Markdown table.
FamilyName = Annotated[str, Constraint(lambda name: _is_family_name(name), FAMILY_NAME)]
Grid = Mapping[str, Values]


@dataclass(frozen=True)
class Family:
    """One line of the table: a model with its options.

    Attributes:
        model: a name of `finedge models`.
        options: of the model.
        set: keys of the recipe that this family needs, e.g. `size`.
        recipe: instead of the sweep's recipes.
        backbone: instead of the sweep's backbones.
        search: instead of the sweep's search, with as many settings.
        control: a family that this one is also compared with, e.g. itself with uniform attention.
        published: {data set: top-1 in percent} of a paper.
    """

    model: Text
    options: Mapping[str, Any] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    recipe: Text = ""
    backbone: Text = ""
    search: Grid | None = None
    control: Text = ""
    published: Mapping[str, Annotated[float, between(0, 100, unit="%")]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        models.entry(self.model)
        if self.backbone:
            backbones.entry(self.backbone)


@dataclass(frozen=True)
class SweepFile:
    """All that a sweep trains.

    Attributes:
        stage: `frozen` trains heads on cached maps of a frozen backbone; `fine-tuned` trains as
            `finedge train`.
        data: names of data sets; the command line says where they are.
        families: the lines of the table, by name.
        recipes: names or files.
        backbones: names of `finedge models`.
        sizes: sides of the input in pixels; empty means the recipe's.
        weights: of the backbones; {data} in it is the name of the data set.
        seeds: trainings of the chosen setting of each family.
        set: keys of the recipe for all families.
        search: {key of the recipe, or options.KEY of the model: values}. All combinations are
            tried with the first seed, and val chooses.
        compare: the families that every other one is compared with.
    """

    stage: Stage
    data: DataNames
    families: Annotated[
        Mapping[FamilyName, Family],
        Constraint(lambda families: len(families) > 0, "at least one family"),
    ]
    recipes: Names = (DEFAULT_RECIPE,)
    backbones: Names = ("efficientnet_lite0",)
    sizes: tuple[int, ...] = ()
    weights: Text = "imagenet"
    seeds: Annotated[int, between(1, 100)] = 5
    set: Mapping[str, Any] = field(default_factory=dict)
    search: Grid = field(default_factory=dict)
    compare: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        for name in self.backbones:
            backbones.entry(name)
        for name in self.compare:
            self._require_family(name)
        for name, family in self.families.items():
            self._require_sensible(name, family)
        self._require_equal_search()

    def only(self, names: Sequence[str]) -> SweepFile:
        """Return the sweep of some families, or of all without names; nothing is compared.

        Raises:
            UsageError: no such family.
        """
        for name in names:
            self._require_family(name)
        chosen = {n: replace(self.families[n], control="") for n in names or self.families}
        return replace(self, families=chosen, compare=())

    def grid(self, family: str) -> Grid:
        """Return the search of a family."""
        own = self.families[family].search
        return self.search if own is None else own

    def settings(self, family: str) -> int:
        """Return the number of settings that a family's search tries."""
        return math.prod(len(values) for values in self.grid(family).values())

    def _require_family(self, name: str) -> None:
        if name not in self.families:
            raise UsageError(f"unknown family '{name}'", expected=nearest(name, self.families))

    def _require_sensible(self, name: str, family: Family) -> None:
        """Refuse what would be left out of the table without a word."""
        if family.control:
            self._require_family(family.control)
        if family.control == name:
            raise UsageError(f"family '{name}' is its own control", expected="another family")
        for data in family.published:
            if data not in self.data:
                raise UsageError(
                    f"family '{name}': published top-1 of an unknown data set '{data}'",
                    expected=nearest(data, self.data),
                )

    def _require_equal_search(self) -> None:
        counts = {name: self.settings(name) for name in self.families}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise UsageError(
                f"searches of unequal size: {listed}",
                expected="as many settings for every family: else the one with more is favoured",
            )


def _is_family_name(name: str) -> bool:
    fits = 0 < len(name) <= MAX_NAME and len(name.encode()) <= 2 * MAX_NAME
    return fits and name == name.strip() and name.isprintable() and "|" not in name


def read_sweep(path: Path) -> SweepFile:
    """Read the file of a sweep.

    Raises:
        UsageError: no such file, not TOML, an unknown key or name, a value of a wrong type, or
            families with searches of unequal size.
    """
    if not path.is_file():
        raise UsageError(f"no file {path}", expected="the TOML file of a sweep")
    values = read_toml(str(path))
    try:
        return decode(SweepFile, values, strict=True)
    except Misfit as error:
        if isinstance(error.__cause__, FinedgeError):
            raise error.__cause__ from None
        raise UsageError(f"{path}: {error}", expected=error.expected) from None
