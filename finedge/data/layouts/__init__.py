"""The layouts of data sets on disk: each reader reads one, and returns None for any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from finedge.data.layouts.cub import read_cub
from finedge.data.layouts.folders import read_one_folder, read_split_folders
from finedge.data.layouts.lists import read_listed
from finedge.data.record import Contents

# The first reader that recognises a folder reads it.
LAYOUTS: dict[str, Callable[[Path], Contents | None]] = {
    "cub": read_cub,
    "lists": read_listed,
    "split-folders": read_split_folders,
    "folder": read_one_folder,
}
