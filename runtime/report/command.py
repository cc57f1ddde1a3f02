"""`finedge report`: make a benchmark's report.json readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from finedge.errors import DataError
from finedge.files import write_text
from finedge.runtime.report.html import page
from finedge.runtime.report.markdown import markdown

SCHEMA = 1
NEEDED = ("made", "environment", "method", "rows")


def report(bundle_or_dir: Positional[Path]) -> dict[str, str]:
    """Write report.md and report.html beside a report.json.

    Args:
        bundle_or_dir: a bundle that was benchmarked, or the folder given to `finedge benchmark --out`.

    Returns:
        `markdown` and `html`: absolute paths.

    Raises:
        DataError: there is no report.json, it is damaged, or a newer finedge wrote it.
    """
    folder = Path(bundle_or_dir).resolve()
    content = read_report(folder / "report.json")
    written = {"markdown": folder / "report.md", "html": folder / "report.html"}
    write_text(written["markdown"], markdown(content))
    write_text(written["html"], page(content))
    return {name: str(path) for name, path in written.items()}


def read_report(path: Path) -> dict[str, Any]:
    """Return the content of a report.json after a look at its schema."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"there is no {path}", expected="a bundle that was benchmarked", fix="finedge benchmark BUNDLE --data DIR") from None
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}", fix="finedge benchmark BUNDLE --data DIR writes it again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise DataError(
            f"{path} has schema {content.get('schema') if isinstance(content, dict) else '?'}", expected=str(SCHEMA), fix="update finedge, or benchmark again"
        )
    missing = [key for key in NEEDED if not content.get(key)]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}", fix="finedge benchmark BUNDLE --data DIR writes it again")
    return content
