"""The templates of the pages: one environment, in which every text is escaped."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape

from finedge.sanitize import printable

SHARED = "finedge.pages"


def render(name: str, *, package: str = SHARED, **values: Any) -> str:
    """Return a page from the template `name` of a package.

    A template can include the templates of this package.
    """
    return _environment(package).get_template(name).render(**values)


def _environment(package: str) -> jinja2.Environment:
    folders = (files(package), files(SHARED))

    def source(name: str) -> str | None:
        places = [folder.joinpath(name) for folder in folders]
        place = next((place for place in places if place.is_file()), None)
        return None if place is None else place.read_text("utf-8")

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        loader=jinja2.FunctionLoader(source),
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Markup:
    """Return a label that a line may break after each underscore."""
    return escape(_printable(text)).replace("_", Markup("_<wbr>"))


def _printable(value: Any) -> Any:
    """Return a value of a template on one line, with its control characters escaped.

    Markup passes as it is: it holds no text of a user that is not escaped yet.
    """
    return printable(re.sub(r"\s+", " ", value)) if type(value) is str else value
