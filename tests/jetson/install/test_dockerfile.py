"""Rules on the Dockerfile's text: it cannot be built without NVIDIA's images."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LINES = (ROOT / "jetson" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
STEPS = [line.split(None, 1) for line in LINES if line and not line.startswith("#")]


def of(instruction: str) -> list[str]:
    return [text for name, text in STEPS if name == instruction]


def test_both_generations_have_a_base_that_nvidia_publishes() -> None:
    text = "\n".join(LINES)
    assert of("ARG")[:2] == ["REGISTRY", "IMAGE=nvidia/l4t-jetpack:r36.4.0"]
    assert "JETPACK=7 --build-arg IMAGE=nvidia/tensorrt:25.09-py3" in text
    assert all(base.startswith("${REGISTRY}/${IMAGE}") for base in of("FROM"))
    assert ":latest" not in text


def test_pip_installs_one_thing_and_under_the_constraints() -> None:
    (install,) = re.findall(r"pip install (.*?) &&", " ".join(of("RUN")))
    assert "--constraint /opt/finedge/constraints.txt" in install
    assert "--only-binary :all:" in install
    options = {
        "--no-cache-dir",
        "--only-binary",
        ":all:",
        "--constraint",
        "/opt/finedge/constraints.txt",
    }
    first, second, *_ = (word for word in install.split() if word not in options)
    assert f"{first} {second}" == '"$(ls /wheels/finedge-*.whl)[events]"'


def test_nothing_that_nvidia_provides_is_installed() -> None:
    assert not re.search(
        r"(pip|apt-get) install[^&]*\b(torch|tensorrt|opencv-python|libnvinfer)",
        " ".join(of("RUN")),
    )


def test_it_runs_as_an_own_user_and_starts_finedge() -> None:
    names = [name for name, _ in STEPS]
    assert of("USER") == ["10001"]
    assert "RUN" not in names[names.index("USER") :]
    assert of("ENTRYPOINT") == ['["/opt/finedge/bin/finedge"]']


@pytest.mark.parametrize("step", [s for s in of("RUN") if "apt-get" in s])
def test_apt_leaves_no_lists_and_installs_no_recommendations(step: str) -> None:
    assert step.rstrip().endswith("rm -rf /var/lib/apt/lists/*")
    assert all(
        "--no-install-recommends" in call for call in re.findall(r"apt-get install [^&|}]*", step)
    )


def test_every_file_it_copies_is_here() -> None:
    sources = [
        word.replace("${JETPACK}", "7")
        for arguments in of("COPY")
        for word in arguments.split()[:-1]
        if not word.startswith("--")
    ]
    assert sources
    assert all((ROOT / source).exists() for source in sources)
