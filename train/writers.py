"""Metrics for TensorBoard or MLflow, beside metrics.jsonl, which stays the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from finedge.errors import SystemProblem
from finedge.train.recipe import Recipe
from finedge.train.request import LogTo

FOLDER = "tensorboard"  # in the run


class MetricsWriter(Protocol):
    """Takes the metrics of one epoch after another."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row of metrics.jsonl."""

    def close(self) -> None:
        """Finish what was written."""


class TensorBoardWriter:
    """Event files in OUT/tensorboard; those of epochs that are trained again are hidden."""

    def __init__(self, path: Path, recipe: Recipe, *, epoch: int) -> None:
        require_writer("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        # torch's functions for TensorBoard have no annotations.
        self.events: Any = SummaryWriter(str(path / FOLDER), purge_step=epoch + 1)  # type: ignore[no-untyped-call]

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row of metrics.jsonl."""
        for name, value in scalars(row).items():
            self.events.add_scalar(name, value, row["epoch"])
        self.events.flush()

    def close(self) -> None:
        """Finish the file."""
        self.events.close()


class MlflowWriter:
    """A run of MLflow, named as the folder, with the recipe as its parameters."""

    def __init__(self, path: Path, recipe: Recipe, *, epoch: int) -> None:
        require_writer("mlflow")
        import mlflow

        self.mlflow: Any = mlflow
        mlflow.start_run(run_name=path.name)
        mlflow.log_params({"start_epoch": epoch, **recipe.to_json()})

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row of metrics.jsonl."""
        self.mlflow.log_metrics(scalars(row), step=row["epoch"])

    def close(self) -> None:
        """End the run."""
        self.mlflow.end_run()


WRITERS: dict[LogTo, Callable[..., MetricsWriter]] = {
    "tensorboard": TensorBoardWriter,
    "mlflow": MlflowWriter,
}


def require_writer(kind: LogTo) -> None:
    """Refuse a writer whose package is missing; `SystemProblem` says how to install it."""
    module = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow"}[kind]
    try:
        import_module(module)
    except ImportError as error:
        raise SystemProblem(
            f"--log-to {kind} needs the package {kind}", fix=f"pip install {kind}"
        ) from error


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row of metrics.jsonl, those of val as `val/NAME`."""
    val = {f"val/{name}": value for name, value in row["val"].items()}
    named = {**{name: value for name, value in row.items() if name != "epoch"}, **val}
    return {name: float(v) for name, v in named.items() if type(v) in (int, float)}
