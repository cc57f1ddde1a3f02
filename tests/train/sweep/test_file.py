from pathlib import Path

import pytest

from finedge.calib.sweep.command import sweep
from finedge.errors import UsageError
from finedge.train.sweep.file import read_sweep
from finedge.train.sweep.plan import groups, search_runs, settings

SWEEPS = Path(__file__).parents[3] / "benchmarks" / "sweeps"


def test_every_family_has_all_combinations_of_the_search(sweep_file):
    more = '[families.cs]\nmodel = "cs"\nsearch = { lr = [0.1], "options.width" = [8, 16] }\n'
    file = read_sweep(sweep_file(rates=(0.01, 0.1), more=more))
    (group,) = groups(file)
    points = {name: [s.point for s in each] for name, each in settings(file, group).items()}
    assert points["plain"] == points["levels"] == [{"lr": 0.01}, {"lr": 0.1}]
    assert points["cs"] == [{"lr": 0.1, "options.width": width} for width in (8, 16)]
    plan = settings(file, group)["cs"][1].plan(seed=3)
    assert (plan.recipe.seed, plan.recipe.lr, plan.recipe.options["width"]) == (3, 0.1, 16)


def test_searches_of_unequal_size_are_refused(sweep_file):
    more = '[families.cs]\nmodel = "cs"\nsearch = { lr = [0.1, 0.2] }\n'
    with pytest.raises(UsageError, match="plain 1, levels 1, cs 2"):
        read_sweep(sweep_file(more=more))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("[families.x]\nmodel = 'plane'\n", "did you mean 'plain'"),
        ("[families.x]\nmodel = 'plain'\ncontrol = 'level'\n", "did you mean 'levels'"),
        ("[families.x]\nmodel = 'plain'\nbackbone = 'resnet51'\n", "did you mean 'resnet5?"),
        ("[families.x]\nmodel = 'plain'\nsed = 1\n", "sed is unknown"),
        ("[families.x]\nmodel = 'plain'\npublished = { pictures = 101 }\n", "0 to 100 %"),
        ("[families.x]\nmodel = 'plain'\nsearch = { lr = [] }\n", "at least one value"),
        ("[families.x]\nmodel = 'plain'\nsearch = { lr = [1, 1] }\n", "each value once"),
        ("[families.x]\nmodel = 'plain'\ncontrol = 'x'\n", "its own control"),
        ("[families.x]\nmodel = 'plain'\npublished = { picture = 1 }\n", "known: pictures"),
        ("[families.'a|b']\nmodel = 'plain'\n", "a name of 1 to 100 printable"),
        (f"[families.{'x' * 101}]\nmodel = 'plain'\n", "a name of 1 to 100 printable"),
    ],
)
def test_a_mistake_in_the_file_is_named(sweep_file, more, expected):
    with pytest.raises(UsageError, match=expected):
        read_sweep(sweep_file(more=more))


def test_a_file_without_families_is_refused(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text('stage = "frozen"\ndata = ["pictures"]\n[families]\n')
    with pytest.raises(UsageError, match="at least one family"):
        read_sweep(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("freeze", 1), ("ema", 0.9), ("mixup", 0.5), ("class_weights", "'balanced'"), ("patience", 2)],
)
def test_a_key_that_cached_heads_do_not_follow_is_refused(sweep_file, key, value):
    more = f"[families.x]\nmodel = 'plain'\nset = {{ {key} = {value} }}\n"
    path = sweep_file(more=more)
    with pytest.raises(UsageError, match=f"family 'x': {key} = "):
        sweep(path, out=Path("unused"), dry_run=True)
    path.write_text(path.read_text().replace("frozen", "fine-tuned"))
    assert sweep(path, out=Path("unused"), dry_run=True)["runs"] == 6


def test_an_option_that_the_model_lacks_is_found_before_anything_is_trained(sweep_file):
    path = sweep_file(more="[families.x]\nmodel = 'plain'\noptions = { widht = 3 }\n")
    with pytest.raises(UsageError, match="no option 'widht'"):
        sweep(path, out=Path("unused"), dry_run=True)


@pytest.mark.parametrize("path", sorted(SWEEPS.rglob("*.toml")), ids=lambda path: path.stem)
def test_the_sweeps_of_the_repository_can_be_planned(path):
    assert sweep(path, out=Path("unused"), dry_run=True)["runs"] > 0


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match="no file"):
        read_sweep(tmp_path / "none.toml")


def test_a_row_is_known_by_all_that_shapes_it(sweep_file):
    path = sweep_file(rates=(0.01, 0.1))
    text = path.read_text()
    changes = (
        ("", ""),
        ("pictures", "others"),
        ('"small"', '"lite0_fast"'),
        ("size = 32", "size = 64"),
        ("epochs = 1", "epochs = 2"),
        ("mobilenetv2_035", "resnet18"),
        ('stage = "frozen"', 'stage = "fine-tuned"'),
    )
    paths = []
    for old, new in changes:
        path.write_text(text.replace(old, new))
        file = read_sweep(path)
        paths += [run.path for group in groups(file) for run in search_runs(file, group)]
    assert len(set(paths)) == 4 * len(changes)


def test_a_family_with_its_own_backbone_is_in_the_table_of_that_backbone(sweep_file):
    more = "[families.deep]\nmodel = 'plain'\nbackbone = 'resnet18'\n"
    file = read_sweep(sweep_file(more=more))
    listed = {group.backbone: list(settings(file, group)) for group in groups(file)}
    assert listed == {"mobilenetv2_035": ["plain", "levels"], "resnet18": ["deep"]}
