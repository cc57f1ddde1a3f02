"""`finedge report`: a benchmark's report.json as pages for people."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from finedge.files import write_text
from finedge.runtime.report.content import read_report
from finedge.runtime.report.html import page
from finedge.runtime.report.markdown import markdown


def report(bundle_or_dir: Positional[Path]) -> dict[str, str]:
    """Write report.md and report.html beside a report.json.

        finedge report birds.finedge

    Args:
        bundle_or_dir: a bundle that was benchmarked, or the folder of `finedge benchmark --out`.

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
