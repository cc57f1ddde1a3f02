from __future__ import annotations

import numpy as np
import pytest

from finedge.errors import UsageError
from finedge.runtime.sources import open_source
from finedge.synthetic.flock import Flock


def test_an_address_chooses_birds_rate_and_seed() -> None:
    uri = "test://?birds=2&fps=50&seed=7"
    with open_source(uri) as source:
        frames = [frame for frame, _ in zip(source, range(2), strict=False)]
    info = source.info
    assert (info.uri, info.width, info.height, info.fps) == (uri, 1280, 720, 50.0)
    expected = Flock(2, seed=7, fps=50.0).frame(1)
    assert np.array_equal(frames[1].image, expected)


def test_an_option_wins_over_the_address() -> None:
    assert open_source("test://?birds=1&fps=50", fps=20.0).info.fps == 20.0
    assert open_source("test://").info.width == 640


@pytest.mark.parametrize(
    "rest", ["x", "?", "?birds=", "?birds=-1", "?birds=9", "?cats=1", "?seed=-1", "?fps=x"]
)
def test_another_address_is_refused(rest: str) -> None:
    with pytest.raises(UsageError, match=r"test://\?birds=3"):
        open_source(f"test://{rest}")
