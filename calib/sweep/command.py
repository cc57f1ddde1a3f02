"""`finedge sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from finedge.data import read_folder
from finedge.errors import UsageError
from finedge.files import writable_folder, write_text
from finedge.locks import locked_after_wait
from finedge.runtime.machine.cpu import cpu_name
from finedge.train.device import Device

if TYPE_CHECKING:
    from finedge.train.sweep.file import SweepFile
    from finedge.train.sweep.stage import Stage

TABLE = "table.md"
LOCK = "lock"


def sweep(
    file: tyro.conf.Positional[Path],
    *,
    out: Path,
    data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    only: tuple[str, ...] = (),
    maps: Path | None = None,
    dry_run: bool = False,
    table: bool = False,
    test: bool = False,
    int8: bool = False,
    retry_failed: bool = False,
    workers: int | None = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Compare models fairly: equal search on val, seeds, paired differences, and controls.

    The same command again continues where it stopped. A training that fails is a row with its
    error. The tables are also written to OUT/table.md.

    Args:
        file: TOML: families, data sets, backbones, sizes, recipes, search and seeds.
        out: folder for rows, weights and tables.
        data: NAME=DIR, a folder of images for each data set of the file. Can be given several
            times.
        only: families that are trained and tested; default all of the file. The tables have all.
        maps: folder for the cached maps of stage `frozen`; default OUT/maps.
        dry_run: only count what would be trained.
        table: only print the tables of the rows that are there.
        test: after the trainings, answer on the test split with what val chose. The choice is then
            fixed: later searches do not change it.
        int8: only export and calibrate what was tested, and measure its INT8 accuracy on test;
            of the first seed also its CPU time in one thread.
        retry_failed: train again what failed.
        workers: threads that prepare images; default one for each core.
        device: of stage `fine-tuned`; auto takes the GPU where there is one.
    """
    # Imported here, so that --help does not wait for torch.
    from finedge.calib.sweep.show import markdown
    from finedge.runtime.telemetry.environment import commit
    from finedge.train.sweep.execute import overview, read_test, train_missing
    from finedge.train.sweep.file import read_sweep
    from finedge.train.sweep.rows import Origin, Rows, versions
    from finedge.train.sweep.table import tables

    if int8 and test:
        raise UsageError("--int8 with --test", expected="--test first, then --int8 alone")
    plan, rows = read_sweep(file), Rows(out)
    if dry_run:
        return overview(plan.only(only), rows)
    if table:
        if not out.is_dir():
            raise UsageError(f"--table: no folder {out}", expected="the --out of a sweep")
        return {"stage": plan.stage, "out": str(out), "tables": tables(plan, rows)}
    places, work = _places(plan, data), plan.only(only)
    origin = Origin(cpu_name(), commit(), versions())
    with _alone(writable_folder(out, option="--out")):
        kept = maps or out / "maps"
        stage = _stage(plan, places, maps=kept, workers=workers, device=device)
        if int8:
            # Calibration is imported only where it runs.
            from finedge.calib.sweep.int8 import measure_int8

            measure_int8(
                plan, rows, stage, data=places, origin=origin, only=only, retry=retry_failed
            )
        else:
            train_missing(work, rows, stage, origin=origin, retry=retry_failed)
            if test:
                read_test(work, rows, stage, origin=origin)
        result = tables(plan, rows)
        write_text(out / TABLE, markdown(result))
    return {"stage": plan.stage, "out": str(out), "tables": result}


def _alone(out: Path) -> AbstractContextManager[None]:
    """Hold a sweep's folder: two processes would train the same runs into the same files.

    Entering it raises `UsageError` if another process holds it.
    """

    def refuse() -> None:
        raise UsageError(
            f"another sweep is at work in {out}",
            expected="one process for each --out",
            fix="wait for it, or choose another --out",
        )

    (out / LOCK).touch()
    return locked_after_wait(out / LOCK, on_wait=refuse)


def _places(plan: SweepFile, words: tuple[str, ...]) -> dict[str, Path]:
    """Return {data set: its folder}; each is looked at now, not in its first training.

    Raises:
        UsageError: a word that is not NAME=DIR, or a data set without a place, or with two.
        DataError: a folder without labelled images.
    """
    pairs = [word.partition("=") for word in words]
    wrong = [name for name, sign, place in pairs if not (name and sign and place)]
    if wrong:
        raise UsageError(f"--data {wrong[0]}", expected="NAME=DIR")
    names = [name for name, _, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"--data {twice[0]}=DIR is given twice", expected="one place")
    places = {name: Path(place) for name, _, place in pairs}
    lacking = [name for name in plan.data if name not in places]
    if lacking:
        raise UsageError(f"no place of data set '{lacking[0]}'", fix=f"--data {lacking[0]}=DIR")
    for name in plan.data:
        read_folder(places[name])
    return places


def _stage(
    plan: SweepFile,
    places: Mapping[str, Path],
    *,
    maps: Path,
    workers: int | None,
    device: Device,
) -> Stage:
    # Imported here: a dry run and a table need none of it.
    from finedge.train.device import choose_device
    from finedge.train.distributed import World
    from finedge.train.loader import default_workers
    from finedge.train.sweep.fine_tuned import FineTunedStage
    from finedge.train.sweep.frozen import FrozenStage

    if plan.stage == "frozen":
        return FrozenStage(places, maps=maps, workers=workers or default_workers())
    return FineTunedStage(places, world=World(choose_device(device)))
