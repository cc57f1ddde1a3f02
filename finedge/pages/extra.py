"""Whether pages can be made here: jinja2 is in the extra [report]."""

from __future__ import annotations

from importlib.util import find_spec

from finedge.errors import SystemProblem


def require_jinja2(subject: str) -> None:
    """Check that pages can be made; `subject` is what needs it, e.g. `--page`.

    Raises:
        SystemProblem: jinja2 is not installed.
    """
    if find_spec("jinja2") is None:
        what = f"{subject} needs the package 'jinja2'"
        raise SystemProblem(what, fix="pip install 'finedge[report]'")
