"""Sweeps on a tiny backbone without weights."""

import json
from pathlib import Path

import pytest

TOML = """
stage = "{stage}"
data = ["pictures"]
backbones = ["mobilenetv2_035"]
recipes = ["small"]
weights = "none"
seeds = 2
compare = ["plain"]

[set]
size = 32
epochs = 1
batch_size = 8
warmup_epochs = 0
start_size = 0
views = 1
ema = 0.0
freeze = 0

[search]
lr = {rates}

[families.plain]
model = "plain"

[families.levels]
model = "levels"
control = "plain"
published = {{ pictures = 90.0 }}
{more}
"""


@pytest.fixture(scope="session")
def sweep_file(tmp_path_factory):
    """Write the file of a sweep and return its path."""

    def write(*, stage="frozen", rates=(0.01,), more=""):
        path = tmp_path_factory.mktemp("sweep") / "sweep.toml"
        path.write_text(TOML.format(stage=stage, rates=list(rates), more=more))
        return path

    return write


def rows(out: Path, kind: str = "rows") -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((out / kind).rglob("*.json"))]
