"""Logs into experiment trackers: Weights & Biases, and MLflow.

Both take what is in ``metrics.jsonl`` under the same tags, each run with its settings, named
``BENCHMARK/LEARNER/seed-K``. Where they keep it is up to their own environment variables, such as
``WANDB_MODE=offline`` and ``MLFLOW_TRACKING_URI``.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clrl.errors import UsageError
from clrl.storage import record
from clrl.storage.record import Row

PROJECT = "clrl"
"""The project, or experiment, that runs belong to unless ``WANDB_PROJECT`` or
``MLFLOW_EXPERIMENT_NAME`` names another."""


class WandB:
    """A run of Weights & Biases.

    A run that goes on from a checkpoint is the same one there; steps that it knows are left.

    Args:
        folder: the run's folder, which decides its identifier.
        rows: what was recorded before.

    Raises:
        UsageError: wandb is not installed.
    """

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        wandb = _module("wandb")
        settings = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=_name(folder),
            id=_identifier(folder),
            group="/".join(folder.parts[-3:-1]),
            dir=folder,
            config=record.read_config(folder),
            resume="allow",
            reinit="create_new",
            settings=settings,
        )
        _write_all(self, rows)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log what was measured at a step."""
        self._run.log(_finite(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """A run of MLflow.

    A run that goes on from a checkpoint takes the place of the one that it was there.

    Args:
        folder: the run's folder, which decides what it takes the place of.
        rows: what was recorded before.

    Raises:
        UsageError: MLflow is not installed.
    """

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        self._client = _module("mlflow").MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        tag = {"clrl.folder": _identifier(folder)}
        text = f"tags.`clrl.folder` = '{_identifier(folder)}'"
        for old in self._client.search_runs([experiment], text):
            self._client.delete_run(old.info.run_id)
        made = self._client.create_run(experiment, tags=tag, run_name=_name(folder))
        self._run = made.info.run_id
        for key, value in _flat(record.read_config(folder)).items():
            self._client.log_param(self._run, key, value)
        _write_all(self, rows)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log what was measured at a step."""
        for tag, value in _finite(values).items():
            self._client.log_metric(self._run, tag, value, step=step)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)


def _write_all(log: WandB | MLflow, rows: Sequence[Row]) -> None:
    for row in rows:
        known = {tag: value for tag, value in row.items() if value is not None}
        log.write(int(known.pop("step")), known)


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {tag: value for tag, value in values.items() if math.isfinite(value)}


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"--log {name}: {error}; pip install 'clrl[{name}]'") from error


def _name(folder: Path) -> str:
    return "/".join(folder.parts[-3:])


def _identifier(folder: Path) -> str:
    """What tells a run from others: the same when it goes on from a checkpoint."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
