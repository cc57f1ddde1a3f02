"""No recipe, and no option of a model, raises anything but a FinedgeError."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finedge.errors import FinedgeError
from finedge.train.recipe import RECIPES, Recipe, read_recipe, recipe_from
from finedge.train.recipe_change import override
from finedge.train.request import RecipeOptions
from tests.fuzz.mutate import HOLDERS, LEAVES, SEEDS, edited

EXAMPLES = [200, pytest.param(4_000, marks=pytest.mark.slow)]
TEXTS = [path.read_bytes() for path in sorted(RECIPES.glob("*.toml"))]
KEYS = [*Recipe().to_json(), "option", "ema ", ""]
PIECES = [
    b"= nan",
    b"= -inf",
    b"= 0x" + b"F" * 9000,
    b"= " + b"9" * 5000,
    b"= 1e999",
    b"= 2020-01-01T00:00:00Z",
    b"[" * 2000,
    b"a." * 200,
    b'"\\uD800"',
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\0",
    b"[[options]]",
    b"= {a = 1}",
    b"= 1000000000",
    b"= ''",
    b"\r",
]

WORDS = ["cosine", "step", "crop", "squash"]
VALUES = [*LEAVES, *WORDS, 32, 448, 10**400]


def plain_data(chance: Random) -> dict[str, Any]:
    """Return up to eight keys of a recipe, each with its own value or an odd one, some changed."""
    own = Recipe().to_json()
    keys = [chance.choice(KEYS) for _ in range(chance.randint(0, 8))]
    data = {
        key: own[key] if key in own and chance.random() < 0.5 else chance.choice(VALUES)
        for key in keys
    }
    changed = edited(data, chance) if chance.random() < 0.5 else data
    return changed if isinstance(changed, dict) else data


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """A shipped recipe with bytes cut out, put in or exchanged; or noise."""
    text = draw(st.sampled_from(TEXTS) | st.binary(max_size=200))
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 12))
        text = (
            text[:at] + draw(st.sampled_from(PIECES) | st.binary(max_size=6)) + text[at + length :]
        )
    return text


def fuzz(count: int, **strategies: Any) -> Any:
    """Return the decorator of a check with `count` examples."""
    quiet = settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    return lambda check: quiet(given(**strategies)(check))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_text_of_a_recipe_raises_an_untyped_error(examples: int, tmp_path: Path) -> None:
    read = []

    @fuzz(examples, text=texts())
    def check(text: bytes) -> None:
        (tmp_path / "r.toml").write_bytes(text)
        with suppress(FinedgeError):
            read.append(read_recipe(str(tmp_path / "r.toml")))

    check()
    assert read, "no mutation left a recipe whole: only the refusals were tested"
    assert all(
        recipe_from(json.loads(json.dumps(recipe.to_json(), allow_nan=False))) == recipe
        for recipe in read
    )


@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_plain_data_raises_an_untyped_error(examples: int) -> None:
    read = []

    @fuzz(examples, seed=SEEDS)
    def check(seed: int) -> None:
        chance = Random(seed)
        with suppress(FinedgeError):
            recipe = recipe_from(plain_data(chance))
            read.append(recipe)
            changes = {key: chance.choice(VALUES) for key in ("lr", "epochs", "size", "seed")}
            overrides = {
                key: value
                for key, value in changes.items()
                if isinstance(value, int) and chance.random() < 0.5
            }
            override(recipe, RecipeOptions(**overrides))

    check()
    assert read
    sides = {(recipe.side(0), recipe.side(recipe.epochs - 1)) for recipe in read}
    assert all(32 <= first <= last <= 4096 for first, last in sides)


@pytest.mark.parametrize("examples", [200, pytest.param(2_000, marks=pytest.mark.slow)])
def test_no_option_raises_an_untyped_error(examples: int) -> None:
    @fuzz(
        examples,
        key=st.sampled_from(["dropout", "", "a=b"]) | st.text(max_size=5),
        value=st.text(max_size=30) | st.sampled_from([repr(x) for x in (*VALUES, *HOLDERS)]),
    )
    def check(key: str, value: str) -> None:
        with suppress(FinedgeError):
            override(Recipe(), RecipeOptions(option=(f"{key}={value}", f"{key}={'[' * 100_000}")))
            override(Recipe(), RecipeOptions(option=(f"{key}={value}",)))

    check()
