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
    """Download, verify and unpack a published data set, with its official split.

    The split is written as lists that every command reads. Archives in OUT, or their unpacked
    content, are used and not downloaded again; a damaged archive is refused. A second run with
    another option rewrites the lists only.

    Args:
        name: A data set of `finedge data list`.
        out: The folder to fill.
        option: KEY=VALUE of this data set, such as level=family or fold=2. Can be given several
            times.
        merge_val: Add the official val split to train, as papers do. Training then takes a tenth of
            it as val.
        mirror: An address that serves the archives under their official names, instead of the
            official one.

    Raises:
        UsageError: unknown data set or option.
        DataError: a missing or damaged archive, or counts that are not the official ones.
        SystemProblem: an address that cannot be reached.
    """
    from finedge.train.data import DATASETS
    from finedge.train.data.build import build_dataset, parse_options

    if name not in DATASETS:
        raise UsageError(f"unknown data set '{name}'", expected=nearest(name, DATASETS))
    if mirror and "://" not in mirror:
        raise UsageError(
            f"--mirror is '{mirror}'", expected="an address such as http://host/folder"
        )
    options = parse_options(DATASETS[name], option)
    return {
        "out": str(Path(out).resolve()),
        **build_dataset(
            name,
            DATASETS[name],
            root=Path(out).resolve(),
            options=options,
            mirror=mirror,
            merge_val=merge_val,
        ),
    }


def datasets() -> dict[str, Any]:
    """List the published data sets.

    For each: terms of use, official counts, options, and whether it can be downloaded.

    Returns:
        {"datasets": [{"name", "title", "homepage", "terms", "counts", "options", "download",
        "note"}]}; `counts` has those that are checked, with the default options.
    """
    from finedge.train.data import DATASETS
    from finedge.train.data.build import parse_options

    fields = ("title", "homepage", "terms", "options", "note")
    return {
        "datasets": [
            {
                "name": name,
                **{key: getattr(dataset, key) for key in fields},
                "counts": dataset.expected(parse_options(dataset, ())),
                "download": dataset.downloadable(),
            }
            for name, dataset in DATASETS.items()
        ]
    }


def check(
    data: Positional[Path], *, near: int = 6, show: int = 20, seed: int = 0
) -> dict[str, Any]:
    """Look for unreadable files, duplicates, uneven classes and tiny images.

    The check fails (exit code 1) on a certain error: an unreadable file, the same bytes in two
    splits, or the same bytes under two labels. Near duplicates need a look by a person: a
    difference hash can be equal for plain pictures of different things. On CUB-100 and Grocery
    Store every pair up to 6 bits was one photo twice or two shots of one scene. From 7 bits on
    there were pairs that are only roughly similar.

    Args:
        data: Any folder that `finedge train` takes.
        near: List pairs whose 64-bit difference hashes differ in at most this many bits, 0 to 16.
        show: Maximum length of a list in the result; the counts are always complete.
        seed: Random seed of the split where the folder has none, as in training.

    Raises:
        FinedgeError: the check failed; the result is printed nevertheless.
        DataError: no known layout.
    """
    from finedge.data import open_dataset
    from finedge.train.data.check import report

    if not 0 <= near <= 16:
        raise UsageError(f"--near is {near}", expected="0 to 16 bits of 64")
    if show < 0:
        raise UsageError(f"--show is {show}", expected="0 or more")
    result = report(open_dataset(Path(data).resolve(), seed=seed), near=near, show=show)
    if not result["pass"]:
        exact = result["exact"]
        raise FinedgeError(
            f"{result['data']}: {result['unreadable']['n']} unreadable files, "
            f"{exact['across_splits']} exact duplicates across splits, "
            f"{exact['different_label']} under two labels",
            expected="none",
            fix="delete or repair the listed files",
            result=result,
        )
    return result
