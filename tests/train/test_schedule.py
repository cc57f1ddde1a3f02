"""The learning rate, held against the published schedules and torch's own schedulers."""

import numpy as np
import pytest
import torch

from finedge.train.optimizer import lr_at
from finedge.train.recipe import Recipe, read_recipe
from finedge.train.recipe_change import override
from finedge.train.request import RecipeOptions

STEPS = 7  # an epoch


def of_epoch(recipe, epoch, *, step=0):
    return lr_at(epoch * STEPS + step, recipe, steps_per_epoch=STEPS)


@pytest.mark.parametrize(
    ("name", "drops"),
    [("cnl_cub", (31, 51, 71)), ("cnl_dogs", (51, 71, 91)), ("cnl_cars", (51, 71, 91))],
)
def test_cnl_warms_up_and_drops_as_published(name, drops):
    recipe = read_recipe(name)
    assert recipe.epochs == 110
    # The authors' code changes the rate once an epoch, on linspace(1e-5, 1e-2, 10). The line
    # through the steps has its value in every epoch.
    for epoch, published in enumerate(np.linspace(1e-5, 1e-2, 10)):
        before = of_epoch(recipe, epoch - 1, step=STEPS - 1) if epoch else recipe.warmup_start
        assert before - 1e-12 <= published <= of_epoch(recipe, epoch, step=STEPS - 1) + 1e-12
    for epoch in range(10, 110):
        assert of_epoch(recipe, epoch) == pytest.approx(
            1e-2 * 0.1 ** sum(epoch >= drop + 10 for drop in drops)
        )


def test_each_phase_has_a_warm_up_and_a_cosine_of_its_own():
    recipe = Recipe(epochs=11, head_epochs=2, full_epochs=3, full_lr=0.5, lr=0.1, warmup_epochs=1.0)
    expected = []
    for epochs, lr in ((2, 0.1), (6, 0.1), (3, 0.05)):
        alone = Recipe(epochs=epochs, lr=lr, warmup_epochs=1.0)
        expected += [of_epoch(alone, 0, step=step) for step in range(epochs * STEPS)]
    found = [of_epoch(recipe, 0, step=step) for step in range(11 * STEPS)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("name", ["attend_rectify_cifar10", "attend_rectify_cifar100"])
def test_attend_and_rectify_drops_to_a_fifth_on_cifar(name):
    recipe = read_recipe(name)
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.nesterov, recipe.weight_decay) == (
        200,
        128,
        0.1,
        True,
        5e-4,
    )
    rates = [of_epoch(recipe, epoch) for epoch in (0, 59, 60, 119, 120, 159, 160, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008])


def test_attend_and_rectify_drops_to_a_tenth_on_imagenet():
    recipe = read_recipe("attend_rectify_imagenet")
    assert (recipe.epochs, recipe.batch_size * recipe.accumulate) == (100, 256)
    assert [of_epoch(recipe, epoch) for epoch in (29, 30, 60, 90, 99)] == pytest.approx(
        [0.1, 0.01, 1e-3, 1e-4, 1e-4]
    )


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=6, lr=0.3, warmup_epochs=0),
        Recipe(epochs=6, lr=0.3, warmup_epochs=0, schedule="step", milestones=(2, 5)),
    ],
)
def test_without_warm_up_the_schedules_are_those_of_torch(recipe):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    if recipe.schedule == "step":
        scheduler = torch.optim.lr_scheduler.MultiStepLR(
            optimizer, [round(m * STEPS) for m in recipe.milestones], recipe.gamma
        )
    else:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * STEPS)
    for step in range(recipe.epochs * STEPS):
        assert lr_at(step, recipe, steps_per_epoch=STEPS) == pytest.approx(
            scheduler.get_last_lr()[0], rel=1e-9
        )
        optimizer.step()
        scheduler.step()


def test_warm_up_starts_where_the_recipe_says_and_ends_at_the_rate():
    recipe = Recipe(epochs=4, lr=0.1, warmup_epochs=1, warmup_start=0.03)
    assert [of_epoch(recipe, 0, step=i) for i in range(STEPS)] == pytest.approx(
        [0.03 + 0.07 * (i + 1) / STEPS for i in range(STEPS)]
    )


def test_a_shorter_training_keeps_the_shape_of_a_step_schedule():
    recipe = override(read_recipe("cnl_cub"), RecipeOptions(epochs=11))
    assert (list(recipe.milestones), recipe.warmup_epochs) == (pytest.approx([4.1, 6.1, 8.1]), 1.0)
    assert override(read_recipe("cnl_cub"), RecipeOptions(epochs=110)) == read_recipe("cnl_cub")
    assert override(read_recipe("common"), RecipeOptions(epochs=3)).warmup_epochs == 1.0
