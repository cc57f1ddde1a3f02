"""`finedge events`: what `finedge classify --store` kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes, Positional

from finedge.errors import UsageError
from finedge.runtime.events.listing import Filter, Listing, write_crops, write_csv

ALL = Filter()


def events(
    store: Positional[Path],
    *,
    choice: OmitArgPrefixes[Filter] = ALL,
    counts: bool = False,
    csv: Path | None = None,
    crops: Path | None = None,
) -> dict[str, Any]:
    """List the visits of a store, the newest first; export them as CSV, or their crops.

    A run may write the file meanwhile.

    Args:
        store: the file of `finedge classify --store`.
        choice: which visits.
        counts: count the visits of each label a day instead.
        csv: also write the visits that are listed to this file.
        crops: also write their best crops to this folder, as DIR/LABEL/TIME-ID.jpg.
    """
    if counts and (csv or crops):
        raise UsageError("--counts with --csv or --crops", expected="one or the other")
    with Listing.opened(store) as listing:
        result: dict[str, Any] = {"store": str(store), "matched": listing.matched(choice)}
        if counts:
            return {**result, "counts": listing.counts(choice)}
        records = listing.events(choice)
        if csv is not None:
            write_csv(csv, records)
            result["csv"] = str(csv)
        if crops is not None:
            result["crops"] = {"out": str(crops), "n": write_crops(crops, listing, records)}
        return {**result, "events": records}
