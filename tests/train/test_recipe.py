import pytest

from finedge.errors import UsageError
from finedge.train.recipe import RECIPES, Recipe, read_recipe, recipe_from, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_reads_and_says_what_it_reaches(name):
    recipe = read_recipe(name)
    assert recipe.resized == round(recipe.size * 256 / 224)
    head = [line for line in (RECIPES / f"{name}.toml").read_text().splitlines() if line.startswith("#")]
    for word in ("data set", "expected", "hardware", "time"):
        assert any(line.startswith(f"# {word}") for line in head), word


def test_the_common_recipe_is_the_papers():
    recipe = read_recipe("common")
    assert (recipe.size, recipe.resized, recipe.weight_decay, recipe.backbone_lr, recipe.label_smoothing) == (448, 512, 5e-4, 0.1, 0.1)


def test_options_override_the_file_and_none_does_not():
    recipe = read_recipe("common", epochs=3, lr=None)
    assert recipe.epochs == 3
    assert recipe.lr == read_recipe("common").lr


def test_a_new_size_brings_its_own_resize(tmp_path):
    (tmp_path / "r.toml").write_text("size = 224\nresize = 300\n")
    assert read_recipe(str(tmp_path / "r.toml")).resized == 300
    assert read_recipe(str(tmp_path / "r.toml"), size=112).resized == 128


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


@pytest.mark.parametrize(("key", "value"), [("epochs", 2.5), ("epochs", True), ("lr", "0.1"), ("nesterov", 1), ("augment", 3), ("options", 1)])
def test_a_value_of_a_wrong_type_is_refused(key, value):
    with pytest.raises(UsageError, match=f"{key} = {value!r}"):
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
        ("ema", 1.0),
    ],
)
def test_a_value_out_of_range_is_refused(key, value):
    with pytest.raises(UsageError, match=key):
        recipe_from({key: value})


def test_the_recorded_form_is_read_back():
    recipe = Recipe(epochs=7, ema=0.99, options={"dropout": 0.1})
    assert recipe_from(recipe.to_json()) == recipe


def test_progressive_training_images_grow_to_the_size_and_stay():
    recipe = Recipe(epochs=12, size=224, start_size=128)
    sides = [recipe.side(epoch) for epoch in range(12)]
    assert sides == sorted(sides)
    assert (sides[0], sides[9:]) == (128, [224] * 3)
    assert {side % 32 for side in sides} == {0}
    assert {Recipe(epochs=5, size=160).side(epoch) for epoch in range(5)} == {160}
