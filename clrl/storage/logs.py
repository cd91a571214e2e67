"""Where measurements go besides ``metrics.jsonl``: CSV, or what a user brings along.

A log is made by a function or class of ``(folder, rows)``: the run's folder, and what was recorded
of it before, oldest first, each row with its ``step``; none for a run that begins. So a run that
goes on from a checkpoint tells its log anew what it is to hold.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from clrl.registry import Entry, Table
from clrl.storage import files
from clrl.storage.record import Recorder, Row

LOGS = Table(
    "log",
    [
        Entry("csv", "metrics.csv in the run's folder: step, metric, value", f"{__name__}:CSV"),
        Entry(
            "wandb",
            "Weights & Biases; needs the extra wandb",
            "clrl.storage.trackers:WandB",
        ),
        Entry("mlflow", "MLflow; needs the extra mlflow", "clrl.storage.trackers:MLflow"),
    ],
    group="clrl.logs",
)


class Log(Protocol):
    """Takes one run's measurements."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values measured at a step; one that is not finite may be among them."""

    def close(self) -> None:
        """The run is over, or is interrupted."""


class CSV:
    """``metrics.csv``: a line a value, in the order of ``metrics.jsonl``.

    Values that are not finite are left out.

    Args:
        folder: where it is written, in place of an older one.
        rows: what it is to hold at the start.

    Raises:
        StorageError: it cannot be written.
    """

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        self._path = folder / "metrics.csv"
        with files.naming(self._path):
            self._file = open(self._path, "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._writer = csv.writer(self._file, lineterminator="\n")
        with files.naming(self._path):
            self._writer.writerow(("step", "metric", "value"))
        for row in rows:
            known = {tag: value for tag, value in row.items() if value is not None}
            self.write(int(known.pop("step")), known)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append what was measured at a step."""
        finite = {tag: value for tag, value in values.items() if math.isfinite(value)}
        with files.naming(self._path):
            self._writer.writerows((step, tag, value) for tag, value in finite.items())
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with files.naming(self._path):
            self._file.close()


class Told:
    """Records measurements, and tells logs of them.

    Args:
        sink: what records them.
        logs: the logs.
    """

    def __init__(self, sink: Recorder, logs: Sequence[Log]) -> None:
        self._sink = sink
        self._logs = logs

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Pass the values on."""
        self._sink.write(step, values)
        for log in self._logs:
            log.write(step, values)
