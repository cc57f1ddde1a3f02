"""`finedge serve` as a process: it answers until a signal, and then what is in hand."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from finedge.bundle import Bundle
from finedge.cli import main
from tests.runtime.conftest import colour_frame
from tests.runtime.serve.conftest import encoded

SOON_S = 30.0


def test_a_process_answers_until_a_signal(tiny_bundle: Bundle) -> None:
    command = [sys.executable, "-m", "finedge", "serve", str(tiny_bundle.path)]
    options = ["--address", "127.0.0.1:0", "--topk", "2", "--variant", "fp32"]
    with subprocess.Popen(
        [*command, *options, "--backend", "onnxruntime"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        address = next(
            word for line in process.stderr for word in line.split() if word.startswith("http://")
        )
        photo = encoded(colour_frame("green", seed=50))
        with urllib.request.urlopen(address, data=photo, timeout=SOON_S) as answer:
            line = json.load(answer)
        assert [line["top"][0]["label"], len(line["top"])] == ["green", 2]
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[1] == "finedge: interrupted\n"
        assert process.returncode == 130


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--address", "nowhere"], 2, "HOST:PORT"),
        (["--token", "short"], 2, "token"),
        (["--batch", "0"], 2, "--batch 0"),
        (["--address", "192.0.2.1:0"], 3, "192.0.2.1"),
    ],
)
def test_what_cannot_be_served_is_a_typed_error(
    tiny_bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    words: str,
) -> None:
    assert main(["serve", str(tiny_bundle.path), "--backend", "onnxruntime", *options]) == code
    assert words in capsys.readouterr().err
