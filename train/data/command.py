"""`finedge data get`, `finedge data list` and `finedge data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tyro.conf import Positional, UseAppendAction

from finedge.errors import FinedgeError, UsageError, nearest


def get(
    name: Positional[str],
    out: Positional[Path],
    *,
    option: UseAppendAction[tuple[str, ...]] = (),
    merge_val: bool = False,
    mirror: str = "",
) -> dict[str, Any]:
    """Download, verify and unpack a published data set, and write its official split as lists that every command reads.

    What lies in OUT already (archives, or their unpacked content) is used and not fetched again; a damaged archive is refused.
    Run again with another option, it rewrites the lists only.

    Args:
        name: A data set that `finedge data list` names.
        out: The folder to fill.
        option: KEY=VALUE of this data set, such as level=family or fold=2. Can be given several times.
        merge_val: Add the official val split to train, as papers do; a tenth of it is then cut as val.
        mirror: An address that serves the archives under their official names, instead of the official one.

    Raises:
        UsageError: unknown data set or option.
        DataError: a missing or damaged archive, or counts that are not the official ones.
        SystemProblem: an address that cannot be reached.
    """
    from finedge.train.data import DATASETS
    from finedge.train.data.build import build, parse_options

    if name not in DATASETS:
        raise UsageError(f"unknown data set '{name}'", expected=nearest(name, DATASETS))
    if mirror and "://" not in mirror:
        raise UsageError(
            f"--mirror is '{mirror}'", expected="an address such as http://host/folder"
        )
    options = parse_options(DATASETS[name], option)
    return {
        "out": str(Path(out).resolve()),
        **build(
            name,
            DATASETS[name],
            root=Path(out).resolve(),
            options=options,
            mirror=mirror,
            merge_val=merge_val,
        ),
    }


def datasets() -> dict[str, Any]:
    """List the published data sets: terms of use, official counts, options, and whether an address to download from exists.

    Returns:
        {"datasets": [{"name", "title", "homepage", "terms", "counts", "options", "download", "note"}]}; `counts` holds those
        that are checked, with the default options.
    """
    from finedge.train.data import DATASETS
    from finedge.train.data.build import parse_options

    return {
        "datasets": [
            {
                "name": name,
                **{
                    key: getattr(d, key)
                    for key in ("title", "homepage", "terms", "options", "note")
                },
                "counts": d.expected(parse_options(d, ())),
                "download": d.downloadable(),
            }
            for name, d in DATASETS.items()
        ]
    }


def check(
    data: Positional[Path], *, near: int = 6, show: int = 20, seed: int = 0
) -> dict[str, Any]:
    """Look for files that cannot be read, duplicates within and across splits, uneven classes and tiny images.

    The check fails (exit code 1) on what is certainly wrong: an unreadable file, the same bytes in two splits, or the same bytes
    under two labels. Near duplicates are for a person to look at: a difference hash also takes plain pictures of different
    things for the same. On CUB-100 and Grocery Store, every pair up to 6 bits was one photo twice or two shots of one scene, and
    from 7 on there were pairs that only look alike from afar.

    Args:
        data: Any folder that `finedge train` takes.
        near: List pairs whose 64-bit difference hashes differ in at most this many bits, 0 to 16.
        show: Longest list in the answer; the counts are always complete.
        seed: Of the cut where the folder lacks a split, as in training.

    Raises:
        FinedgeError: the check failed; the answer is printed all the same.
        DataError: no known layout.
    """
    from finedge.data import open_dataset
    from finedge.train.data.check import report

    if not 0 <= near <= 16:
        raise UsageError(f"--near is {near}", expected="0 to 16 bits of 64")
    if show < 0:
        raise UsageError(f"--show is {show}", expected="0 or more")
    found = report(open_dataset(Path(data).resolve(), seed=seed), near=near, show=show)
    if not found["pass"]:
        bad, exact = found["unreadable"]["n"], found["exact"]
        what = f"{bad} unreadable files, {exact['across_splits']} exact duplicates across splits, {exact['different_label']} under two labels"
        raise FinedgeError(
            f"{found['data']}: {what}",
            expected="none",
            fix="delete or repair the listed files",
            result=found,
        )
    return found
