"""Counts of a run for Prometheus: at http://ADDRESS/metrics, and on the live page's address.

Whoever reaches ADDRESS can read the counts, and nothing else: no picture, no password. The live
page serves them to those who may see the page. The number of time series is bounded: a source has
at most `MAX_LABELS` labels, and later ones count as `other`.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from finedge import __version__
from finedge.errors import SystemProblem
from finedge.runtime.events.notice import Counts, Notice, NoticeSink
from finedge.runtime.events.outputs import EventOutputs
from finedge.runtime.machine.packages import PackageMissing, load_package
from finedge.runtime.serve.access import Address, parse_address, url
from finedge.runtime.sinks import Context, Result
from finedge.sanitize import printable

if TYPE_CHECKING:
    from finedge.runtime.serve.server import WebServer

PATH = "/metrics"
HEADERS = {
    "Content-Type": "text/plain; version=0.0.4; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
}
MAX_LABELS = 100
OTHER = "other"
# Of the age of an answer, in s.
BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass
class SourceCounts:
    """What was counted of one source.

    `ages` counts the answers between two edges of `BUCKETS`, and those above the last one.
    """

    captured: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    silences: int = 0
    ages: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    age_sum_s: float = 0.0
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    labels: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)

    def see(self, result: Result) -> None:
        """Count a result."""
        record = result.record
        if record["frame"] is None:
            self.silences += 1
            return
        self.captured = max(self.captured, record["frame"] + 1)
        self.answered[record["status"]] += 1
        age_s = record["age_ms"] / 1e3
        self.ages[bisect_left(BUCKETS, age_s)] += 1
        self.age_sum_s += age_s

    def write(self, notice: Notice) -> None:
        """Count an event."""
        event = notice.event
        label = printable(event.label)
        if label not in self.labels and len(self.labels) >= MAX_LABELS:
            label = OTHER
        self.labels.add(label)
        self.events[event.kind, label] += 1
        if event.kind == "started":
            self.open.add(event.id)
        else:
            self.open.discard(event.id)


class Metrics:
    """Counts results and events, and serves the counts.

    Args:
        context: of the run.
        sinks: whose queues are shown.
        address: HOST:PORT; port 0 lets the system choose. Without it nothing is served here: the
            live page serves `text`.

    Raises:
        UsageError: the address has another form.
        SystemProblem: it cannot be served, or prometheus_client is missing.
    """

    name = "metrics"

    def __init__(
        self, context: Context, *, sinks: Sequence[NoticeSink] = (), address: str | None = None
    ) -> None:
        self._lock, self._context, self._sinks = threading.Lock(), context, tuple(sinks)
        self._names = _unique(context.names)
        self._sources = [SourceCounts() for _ in context.names]
        self._written = 0
        self._server: WebServer | None = None
        if address is not None:
            _packages()
            endpoint = parse_address(address)
            self._server = _served(endpoint, self.text)
            self.url = url(endpoint.host, self._server.port).rstrip("/") + PATH

    def see(self, result: Result) -> None:
        """Count a result."""
        with self._lock:
            self._sources[result.stream].see(result)

    def write(self, notice: Notice) -> None:
        """Count an event."""
        with self._lock:
            self._sources[notice.event.stream].write(notice)
            self._written += 1

    def finish(self) -> None:
        """Do nothing: the port is open to the end."""

    def close(self) -> None:
        """Close the port, in bounded time."""
        if self._server is not None:
            self._server.stop()

    @property
    def counts(self) -> Counts:
        """How many events were counted."""
        return Counts(delivered=self._written)

    def text(self) -> bytes:
        """Return the counts in Prometheus's text format.

        Raises:
            SystemProblem: prometheus_client is missing.
        """
        core, exposition = _packages()
        registry = core.CollectorRegistry(auto_describe=False)
        registry.register(self)
        text: bytes = exposition.generate_latest(registry)
        return text

    def collect(self) -> Iterator[Any]:
        """Yield the metrics: prometheus_client calls it."""
        core, _ = _packages()
        info = core.InfoMetricFamily("finedge", "the program and the bundle")
        info.add_metric([], {"version": __version__, "bundle": printable(self._context.title)})
        yield info
        with self._lock:
            families = [*self._frames(core), self._ages(core), *self._events(core)]
        yield from families
        yield from self._queues(core)

    def _frames(self, core: Any) -> Iterator[Any]:
        counter, by = core.CounterMetricFamily, ["source"]
        captured = counter("finedge_frames_captured", "frames that the source gave", labels=by)
        dropped = counter("finedge_frames_dropped", "frames without an answer", labels=by)
        silences = counter("finedge_no_signal", "times without a signal", labels=by)
        answered = counter(
            "finedge_frames_answered", "frames with an answer", labels=[*by, "status"]
        )
        for name, source in zip(self._names, self._sources, strict=True):
            captured.add_metric([name], source.captured)
            dropped.add_metric([name], max(0, source.captured - source.answered.total()))
            silences.add_metric([name], source.silences)
            for status, count in source.answered.items():
                answered.add_metric([name, status], count)
        yield from (captured, dropped, silences, answered)

    def _ages(self, core: Any) -> Any:
        ages = core.HistogramMetricFamily(
            "finedge_frame_age_seconds", "from the capture to the answer", labels=["source"]
        )
        edges = [*(f"{edge:g}" for edge in BUCKETS), "+Inf"]
        for name, source in zip(self._names, self._sources, strict=True):
            buckets = list(zip(edges, accumulate(source.ages), strict=True))
            ages.add_metric([name], buckets, source.age_sum_s)
        return ages

    def _events(self, core: Any) -> Iterator[Any]:
        by = ["source", "kind", "label"]
        events = core.CounterMetricFamily("finedge_events", "starts and ends of visits", labels=by)
        present = core.GaugeMetricFamily("finedge_visits_open", "visits now", labels=["source"])
        for name, source in zip(self._names, self._sources, strict=True):
            present.add_metric([name], len(source.open))
            for (kind, label), count in source.events.items():
                events.add_metric([name, kind, label], count)
        yield from (events, present)

    def _queues(self, core: Any) -> Iterator[Any]:
        counter, gauge, by = core.CounterMetricFamily, core.GaugeMetricFamily, ["sink"]
        delivered = counter("finedge_sink_delivered", "events that arrived", labels=by)
        lost = counter("finedge_sink_lost", "events that were dropped or refused", labels=by)
        waiting = gauge("finedge_sink_waiting", "events in the queue", labels=by)
        works = gauge("finedge_sink_up", "1 where it works, 0 with a problem", labels=by)
        for sink in self._sinks:
            counts = sink.counts
            delivered.add_metric([sink.name], counts.delivered)
            lost.add_metric([sink.name], counts.lost)
            waiting.add_metric([sink.name], counts.waiting)
            works.add_metric([sink.name], 0 if counts.problem else 1)
        yield from (delivered, lost, waiting, works)


def _packages() -> tuple[Any, Any]:
    """Return the two modules of prometheus_client that write its text."""
    try:
        core = load_package("prometheus_client.core")
        return core, load_package("prometheus_client.exposition")
    except PackageMissing as error:
        raise SystemProblem(
            "/metrics needs the package prometheus-client", fix="pip install 'finedge[events]'"
        ) from error


def _served(address: Address, text: Callable[[], bytes]) -> WebServer:
    """Serve the text, and nothing else."""
    try:
        from starlette.applications import Starlette
        from starlette.responses import Response
        from starlette.routing import Route

        from finedge.runtime.serve.server import WebServer
    except ModuleNotFoundError as error:
        raise SystemProblem(
            f"--metrics needs the package '{error.name}'", fix="pip install 'finedge[events]'"
        ) from error

    def answer(request: Any) -> Response:
        return Response(text(), headers=HEADERS)

    return WebServer(Starlette(routes=[Route(PATH, answer, methods=["GET"])]), address)


def _unique(names: Sequence[str]) -> list[str]:
    """Return a name for each source: without their secrets, two addresses may be the same."""
    texts = [printable(name) for name in names]
    return [
        text if texts.count(text) == 1 else f"{text} ({number})"
        for number, text in enumerate(texts)
    ]


def open_metrics(
    outputs: EventOutputs, context: Context, *, opened: Sequence[NoticeSink]
) -> NoticeSink | None:
    """Return the sink of --metrics. A live page needs one too, and then one server suffices."""
    if context.page is None:
        if outputs.metrics is None:
            return None
        return Metrics(context, sinks=opened, address=outputs.metrics)
    own = outputs.metrics
    if own is not None and parse_address(own) == parse_address(context.page):
        own = None
    return Metrics(context, sinks=opened, address=own)
