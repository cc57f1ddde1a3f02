"""What the page says beside its cameras: counts for Prometheus, and outputs in trouble."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from finedge.errors import SystemProblem
from finedge.runtime.events.notice import Counts
from finedge.runtime.sinks.live.page import LivePage
from tests.runtime.sinks.live.test_http import TOKEN, ask

Serve = Callable[..., LivePage]
AWAY = "broker:1883 cannot be reached: <b>refused</b>"


def test_prometheus_gets_its_counts_where_the_page_is(serve: Serve) -> None:
    page = serve(metrics=lambda: b"finedge_info 1\n", token=TOKEN)
    assert ask(page, "/metrics")[0].status == 401
    answer, body = ask(page, "/metrics", Authorization=f"Bearer {TOKEN}")
    assert (answer.status, body) == (200, b"finedge_info 1\n")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert ask(serve(), "/metrics")[0].status == 404


def test_a_missing_package_is_said(serve: Serve) -> None:
    def fail() -> bytes:
        raise SystemProblem("/metrics needs the package prometheus-client", fix="install it")

    answer, body = ask(serve(metrics=fail), "/metrics")
    assert (answer.status, json.loads(body)["error"]["fix"]) == (501, "install it")


def test_an_output_in_trouble_is_shown_until_it_works_again(
    serve: Serve, result: Any, browser: Any
) -> None:
    counts = {
        "store": Counts(12),
        "mqtt": Counts(10, 1, 2, problem=AWAY, problem_s=125.0),
        "metrics": Counts(12),
    }
    page = serve(reports=lambda: counts)
    page.write(result(0))
    browser.open(page.url)
    browser.wait("!document.getElementById('troubles').hidden")
    text = browser.text()
    for shown in (f"MQTT: {AWAY}.", "2 events wait", "Since 2 min.", "12 events", "1 lost"):
        assert shown in text, shown
    assert "metrics" not in text.lower()
    assert browser.value("document.querySelectorAll('#troubles b *').length") == 0
    counts["mqtt"] = Counts(12, 1)
    browser.wait("document.getElementById('troubles').hidden")
    assert browser.complaints == []
