import json
import re
import shlex
from dataclasses import replace

import pytest
import torch

from finedge.errors import UsageError
from finedge.train.backbones import BACKBONES
from finedge.train.models import MODELS, build_model
from finedge.train.plan import planned
from finedge.train.recipe import (
    RECIPES,
    Recipe,
    read_recipe,
    recipe_from,
    recipe_names,
)
from finedge.train.recipe_change import override
from finedge.train.request import ModelOptions, RecipeOptions, RunOptions, TrainingRequest

# Published sizes before and after the crop, where they are not 256 to 224.
SIDES = {
    "attend_rectify_cifar10": (32, 32),
    "attend_rectify_cifar100": (32, 32),
    "clca_cga": (550, 448),
}


def head(name):
    lines = (RECIPES / f"{name}.toml").read_text().splitlines()
    return [line for line in lines if line.startswith("#")]


def command(name):
    """The options of the `finedge train` command in a recipe's head comment."""
    text = "\n".join(line.removeprefix("#") for line in head(name))
    lines = re.search(r"^ command ((?:.*\\\n)*.*)$", text, re.M)[1]
    words = [w for w in shlex.split(lines.replace("\\\n", " ")) if w != "--quick"]
    assert words[:2] == ["finedge", "train"]
    return dict(zip(words[2::2], words[3::2], strict=True))


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_reads_and_says_what_it_reaches(name):
    recipe = read_recipe(name)
    assert (recipe.resized, recipe.size) == SIDES.get(
        name, (round(recipe.size * 256 / 224), recipe.size)
    )
    for word in ("data set", "expected", "hardware", "time", "command"):
        assert any(line.startswith(f"# {word} ") for line in head(name)), word


@pytest.mark.parametrize("name", recipe_names())
def test_the_command_in_a_recipes_head_names_what_there_is(name):
    options = command(name)
    assert options["--recipe"] == name
    assert {"--data", "--out"} < set(options)
    if options["--backbone"] not in BACKBONES:
        pytest.skip(f"no backbone {options['--backbone']} yet")
    # RUN: the run of a step before.
    assert options["--weights"] in ("none", "RUN", *BACKBONES[options["--backbone"]].weights)
    settings = read_recipe(name)
    with torch.device("meta"):
        model = build_model(
            options["--model"], num_classes=10, backbone=options["--backbone"], **settings.options
        )
    assert settings.options.items() <= model.options.items()


@pytest.mark.parametrize("name", [n for n in recipe_names() if not SIDES.get(n)])
def test_a_recipe_without_options_of_one_model_trains_them_all(name):
    if set(read_recipe(name).options) <= {"dropout", "head_init"}:
        with torch.device("meta"):
            for model in MODELS:
                build_model(model, num_classes=10, backbone="resnet18", **read_recipe(name).options)


def test_cnl_is_trained_as_published():
    recipe = read_recipe("cnl_cub")
    assert (recipe.size, recipe.resized, recipe.augment, recipe.min_area, recipe.max_area) == (
        448,
        512,
        "resized-crop",
        0.08,
        1.25,
    )
    assert (
        recipe.batch_size,
        recipe.weight_decay,
        recipe.nesterov,
        recipe.backbone_lr,
        recipe.label_smoothing,
    ) == (32, 1e-4, False, 1.0, 0.0)


def test_fbsd_squashes_to_550_and_learns_new_layers_ten_times_as_fast():
    recipe = read_recipe("clca_cga")
    assert (recipe.rule, recipe.augment, recipe.pad, recipe.batch_size, recipe.epochs) == (
        "squash",
        "pad-crop",
        8,
        20,
        200,
    )
    assert (recipe.lr, recipe.lr * recipe.backbone_lr, recipe.weight_decay) == (
        0.002,
        pytest.approx(0.0002),
        5e-4,
    )


@pytest.mark.parametrize(
    "name", [n for n in recipe_names() if re.match("cnl|attend|cs|clca|gates", n)]
)
def test_a_papers_recipe_claims_no_measured_number(name):
    text = " ".join(line.removeprefix("#").strip() for line in head(name))
    assert "not measured here" in text


def test_the_common_recipe_is_the_papers():
    recipe = read_recipe("common")
    assert (
        recipe.size,
        recipe.resized,
        recipe.weight_decay,
        recipe.backbone_lr,
        recipe.label_smoothing,
    ) == (448, 512, 5e-4, 0.1, 0.1)


def test_options_override_the_file_and_none_does_not():
    recipe = override(read_recipe("common"), RecipeOptions(epochs=3))
    assert recipe.epochs == 3
    assert recipe.lr == read_recipe("common").lr


def test_a_new_size_below_the_start_is_the_side_of_all_epochs():
    recipe = override(read_recipe("lite0_fast"), RecipeOptions(size=64))
    assert {recipe.side(epoch) for epoch in range(recipe.epochs)} == {64}
    assert override(read_recipe("lite0_fast"), RecipeOptions(size=224)).start_size == 112


def test_a_new_size_brings_its_own_resize(tmp_path):
    (tmp_path / "r.toml").write_text("size = 224\nresize = 300\n")
    assert read_recipe(str(tmp_path / "r.toml")).resized == 300
    assert override(read_recipe(str(tmp_path / "r.toml")), RecipeOptions(size=112)).resized == 128


# One value for each type of a recipe's schema, as a word of --set and as the recipe has it.
SET = {
    "epochs=7": 7,
    "lr=1": 1.0,
    "label_smoothing=0": 0.0,
    "nesterov=false": False,
    "augment=resized-crop": "resized-crop",
    'method="cv2-area"': "cv2-area",
    "compile=true": True,
}


@pytest.mark.parametrize("word", SET)
def test_set_changes_any_key_with_its_type(word):
    recipe = override(Recipe(), RecipeOptions(set=(word,)))
    value = getattr(recipe, word.split("=")[0])
    assert (value, type(value)) == (SET[word], type(SET[word]))


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("label_smothing=0", "did you mean 'label_smoothing'"),
        ("epochs=2.5", "epochs = 2.5"),
        ("nesterov=True", "true or false"),
        ("lr=NaN", "lr = nan"),
        ("epochs=0", "1 to 100000"),
        ("epochs", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ('options={"dropout":0.1}', "--set options"),
    ],
)
def test_a_wrong_set_is_refused(word, hint):
    with pytest.raises(UsageError, match=hint):
        override(Recipe(), RecipeOptions(set=(word,)))


def test_an_option_of_its_own_wins_over_set():
    options = RecipeOptions(lr=0.2, set=("lr=0.1", "ema=0.9"))
    recipe = override(Recipe(), options)
    assert (recipe.lr, recipe.ema) == (0.2, 0.9)
    assert override(Recipe(ema=0.9, seed=4), RecipeOptions(ema=0.0, seed=0)) == Recipe()


def test_set_moves_milestones_as_epochs_do_unless_it_names_them():
    step = Recipe(epochs=10, schedule="step", milestones=(4.0, 8.0))
    assert override(step, RecipeOptions(set=("epochs=20",))).milestones == (8.0, 16.0)
    words = ("epochs=20", "milestones=[5]")
    assert override(step, RecipeOptions(set=words)).milestones == (5.0,)
    assert override(step, RecipeOptions(set=("schedule=cosine",))).milestones == ()


def test_a_file_holds_options_of_the_model(tmp_path):
    (tmp_path / "r.toml").write_text("epochs = 5\n[options]\ndropout = 0.2\n")
    assert read_recipe(str(tmp_path / "r.toml")) == Recipe(epochs=5, options={"dropout": 0.2})


def test_an_unknown_key_is_refused_with_the_nearest(tmp_path):
    (tmp_path / "r.toml").write_text("label_smothing = 0.1\n")
    with pytest.raises(UsageError, match="did you mean 'label_smoothing'"):
        read_recipe(str(tmp_path / "r.toml"))


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'lite0_fast'"):
        read_recipe("lite0_fats")


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    (tmp_path / "r.toml").write_text("epochs: 3\n")
    with pytest.raises(UsageError, match="not TOML"):
        read_recipe(str(tmp_path / "r.toml"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 2.5),
        ("epochs", True),
        ("lr", "0.1"),
        ("nesterov", 1),
        ("augment", 3),
        ("milestones", "30"),
        ("options", 1),
    ],
)
def test_a_value_of_a_wrong_type_is_refused(key, value):
    with pytest.raises(UsageError, match=re.escape(f"{key} = {value!r}")):
        recipe_from({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("size", 8),
        ("resize", 100),
        ("lr", 0.0),
        ("label_smoothing", 1.0),
        ("augment", "mixup"),
        ("min_area", 0.0),
        ("max_area", 0.1),
        ("pad", -1),
        ("pad", 4),
        ("rotation", 181.0),
        ("rule", "stretch"),
        ("schedule", "steps"),
        ("schedule", "step"),
        ("milestones", [3]),
        ("gamma", 0.0),
        ("warmup_epochs", -1.0),
        ("warmup_start", 1.0),
        ("accumulate", 0),
        ("backbone_lr", -0.1),
        ("momentum", 1.0),
        ("optimizer", "adam"),
        ("layer_decay", 0.0),
        ("mixup", -0.1),
        ("cutmix", 1e9),
        ("mix_share", 1.1),
        ("randaugment", 31),
        ("random_erasing", 1.1),
        ("sampling", "rare"),
        ("class_weights", "linear"),
        ("patience", -1),
        ("keep", "first"),
        ("weight_decay", -1e-4),
        ("ema", 1.0),
        ("epochs", 10**12),
        ("batch_size", 10**9),
        ("size", 10**9),
        ("resize", 10**9),
        ("accumulate", 10**9),
        ("max_area", 1e308),
        ("distill_temperature", 1e200),
        ("warmup_epochs", 1e308),
        ("seed", 2**63 - 1),
        ("epochs", 10**400),
        ("lr", float("inf")),
        ("lr", float("nan")),
        ("method", "nearest"),
    ],
)
def test_a_value_out_of_range_is_refused(key, value):
    with pytest.raises(UsageError, match=key):
        recipe_from({key: value})


@pytest.mark.parametrize("milestones", [[-1.0], [1e9], [float("nan")], list(range(2000))])
def test_milestones_are_epochs(milestones):
    with pytest.raises(UsageError, match="milestones"):
        recipe_from({"schedule": "step", "milestones": milestones})


def test_a_batch_has_at_most_four_gib_of_pixels():
    assert recipe_from({"batch_size": 4096, "size": 448}).batch_size == 4096
    with pytest.raises(UsageError, match="4 GiB"):
        recipe_from({"batch_size": 4096, "size": 1024})


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"lr = nan", "lr = nan"),
        (b"lr = 1e999", "lr = inf"),
        (b"epochs = 0x" + b"F" * 5000, "epochs = an integer of 20000 bits"),
        (b"epochs = " + b"9" * 5000, "not TOML"),
        (b"[options]\nwhen = 2020-01-01", r"options\.when"),
        (b"[options.a]\nb = [1, nan]", r"options\.a\.b\[1\]"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b"options." + b"a." * 40 + b"b = 1", "nested too deeply"),
        (b"lr = '\xff'", "UTF-8"),
        (b"milestones = [1, 'a']\nschedule = 'step'", r"milestones\[1\] = 'a'"),
        (b"[epochs]\nx = 1", "epochs = "),
        (b"x" * (2 << 20), "too large"),
    ],
)
def test_what_nobody_means_is_refused_with_its_place(tmp_path, content, place):
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(UsageError, match=place):
        read_recipe(str(tmp_path / "r.toml"))


def test_an_empty_file_and_a_byte_order_mark_are_recipes(tmp_path):
    (tmp_path / "r.toml").write_bytes(b"")
    assert read_recipe(str(tmp_path / "r.toml")) == Recipe()
    (tmp_path / "r.toml").write_bytes(b"\xef\xbb\xbfepochs = 3\r\n")
    assert read_recipe(str(tmp_path / "r.toml")).epochs == 3


@pytest.mark.parametrize("name", ["", ".", "no\0name", "n" * 300, "/dev/null/recipe"])
def test_what_is_no_file_is_no_recipe(name):
    with pytest.raises(UsageError):
        read_recipe(name)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=7, ema=0.99, options={"dropout": 0.1}),
        Recipe(schedule="step", milestones=(3, 5.5)),
    ],
)
def test_the_recorded_form_is_read_back(recipe):
    recorded = json.loads(json.dumps(recipe.to_json()))
    assert recipe_from(recorded) == recipe
    assert recorded == recipe.to_json()


def test_progressive_training_images_grow_to_the_size_and_stay():
    recipe = Recipe(epochs=12, size=224, start_size=128)
    sides = [recipe.side(epoch) for epoch in range(12)]
    assert sides == sorted(sides)
    assert (sides[0], sides[9:]) == (128, [224] * 3)
    assert {side % 32 for side in sides} == {0}
    assert {Recipe(epochs=5, size=160).side(epoch) for epoch in range(5)} == {160}


def test_training_images_may_be_smaller_than_those_of_evaluation():
    recipe = Recipe(epochs=12, size=224, start_size=128, train_size=176)
    assert (recipe.side(0), recipe.side(11), recipe.size) == (128, 176, 224)
    phased = replace(recipe, epochs=15, head_epochs=2, full_epochs=1)
    middle = [recipe.side(epoch) for epoch in range(12)]
    assert [phased.side(epoch) for epoch in range(15)] == [224, 224, *middle, 224]
    assert {Recipe(size=224, train_size=176).side(epoch) for epoch in range(100)} == {176}


@pytest.mark.parametrize(
    ("size", "train", "start"), [(448, 352, 128), (160, 128, 128), (64, 48, 0), (32, 32, 0)]
)
def test_a_new_size_keeps_the_share_of_the_training_images(size, train, start):
    recipe = Recipe(epochs=12, size=224, start_size=128, train_size=176)
    changed = override(recipe, RecipeOptions(size=size))
    assert (changed.train_size, changed.start_size) == (train, start)
    assert changed.resized == round(size * 256 / 224)


@pytest.mark.parametrize(("epochs", "head"), [(48, 3), (12, 3), (7, 1), (3, 0)])
def test_new_epochs_leave_most_of_them_to_all_layers(epochs, head):
    recipe = Recipe(epochs=24, head_epochs=3, full_epochs=3)
    changed = override(recipe, RecipeOptions(epochs=epochs))
    assert (changed.head_epochs, changed.full_epochs) == (head, head)


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 3, "head_epochs": 3},
        {"epochs": 3, "head_epochs": 2, "full_epochs": 1},
        {"schedule": "step", "milestones": [5], "head_epochs": 1},
        {"size": 160, "train_size": 176},
        {"train_size": 176, "start_size": 192},
    ],
)
def test_values_that_do_not_fit_each_other_are_refused(values):
    with pytest.raises(UsageError, match="recipe value"):
        recipe_from(values)


@pytest.mark.parametrize(("weights", "kept"), [("none", False), ("imagenet", True)])
def test_without_weights_there_are_no_features_to_keep(weights, kept, tmp_path):
    (tmp_path / "r.toml").write_text("freeze = 2\nhead_epochs = 3\n")
    request = TrainingRequest(
        RunOptions(out=tmp_path / "run", data=tmp_path),
        ModelOptions(weights=weights),
        RecipeOptions(recipe=str(tmp_path / "r.toml")),
    )
    recipe = planned(request).recipe
    assert (recipe.freeze, recipe.head_epochs) == ((2, 3) if kept else (0, 0))
    given = replace(request, recipe=replace(request.recipe, freeze=1))
    assert planned(given).recipe.freeze == 1


def test_classes_are_balanced_once():
    with pytest.raises(UsageError, match="class_weights"):
        recipe_from({"sampling": "balanced", "class_weights": "balanced"})
