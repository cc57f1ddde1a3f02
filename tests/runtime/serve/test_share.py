"""One session for two threads: each gets its answer, and no call meets another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from finedge.runtime.classifier import Classifier
from finedge.runtime.serve.share import share_session
from tests.runtime.conftest import COLOURS, colour_frame


class OneAtATime:
    """A session that reuses one buffer for its answers, as that of an engine does."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.info, self.busy = inner, inner.info, threading.Lock()

    def __call__(self, batch: Any) -> Any:
        assert self.busy.acquire(blocking=False), "two calls at a time"
        try:
            return self.inner(batch)
        finally:
            self.busy.release()

    def close(self) -> None: ...


def test_a_shared_session_is_called_by_one_thread_at_a_time(open_classifier: Classifier) -> None:
    own = replace(open_classifier, session=OneAtATime(open_classifier.session))
    shared = share_session(own)
    frames = [colour_frame(colour, seed=3) for colour in list(COLOURS) * 8]
    with ThreadPoolExecutor(4) as threads:
        scores = list(threads.map(lambda frame: shared.scores(shared.prepare([frame])), frames))
    assert np.array_equal(
        np.concatenate(scores), open_classifier.scores(open_classifier.prepare(frames))
    )
    assert shared.session.info == open_classifier.session.info
