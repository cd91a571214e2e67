"""What a run leaves on disk, and the only code that writes it.

``metrics.jsonl`` is canonical: a JSON object a line. The TensorBoard event file beside it
is made from the same values. ``status.json`` says how far a run has come, ``config.yaml``
what it is.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import time
import typing
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import yaml

METRICS = "metrics.jsonl"
STATUS = "status.json"
CONFIG = "config.yaml"
ERROR = "error.txt"
EVENTS = "events.out.tfevents."

State = Literal["running", "finished", "diverged", "interrupted", "failed"]
DONE: tuple[State, ...] = ("finished", "diverged")
"""The states of runs that are not to be done again."""


class Recorder:
    """Writes the metrics of one run.

    Every call of `write` reaches the disk as whole lines, so that a process killed at any
    time leaves a readable file.

    Args:
        folder: the run's folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = open(folder / METRICS, "wb", buffering=0)  # noqa: SIM115 - closed in close
        self._events = _EventFile(folder)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line of metrics.

        Args:
            step: examples seen so far.
            values: tag to value. A value that is not finite becomes null in the line, and
                is left out of the event file.
        """
        finite = {tag: value for tag, value in values.items() if math.isfinite(value)}
        line = {"step": step, **{tag: finite.get(tag) for tag in values}}
        self._lines.write((json.dumps(line, allow_nan=False) + "\n").encode())
        self._events.write(step, finite)

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        self._lines.close()
        self._events.close()

    def __enter__(self) -> Recorder:
        """The recorder itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the files."""
        self.close()


class _EventFile:
    """A TensorBoard event file, written record by record without threads."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import (
            RecordWriter,
        )

        self._event = Event
        name = f"{EVENTS}{time.time_ns() // 1000}.clrl"
        self._file: IO[bytes] = open(folder / name, "wb", buffering=0)  # noqa: SIM115
        self._records = RecordWriter(self._file)
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        event = self._event(wall_time=time.time(), step=step)
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._append(event)

    def _append(self, event: Any) -> None:
        self._records.write(event.SerializeToString())

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """Read a ``metrics.jsonl``.

    Args:
        path: the file; one that is not there counts as empty.

    Returns:
        One mapping a line. A last line that is cut off is left out, so the file of a run
        that is being written can be read.

    Raises:
        ValueError: a line before the last is not JSON.
    """
    if not path.exists():
        return []
    rows = []
    text = path.read_bytes()
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith(b"\n"):
            break
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is not JSON: {error}") from error
    return rows


def start_run(folder: Path, seed: int, config: Mapping[str, Any], config_hash: str) -> None:
    """Make a run's folder ready: remove what an earlier attempt left, say what will run.

    Args:
        folder: the run's folder; it is made where it is missing.
        seed: the run's seed.
        config: the run's complete configuration as plain data.
        config_hash: its hash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in [folder / METRICS, folder / ERROR, *folder.glob(EVENTS + "*")]:
        path.unlink(missing_ok=True)
    write_status(folder, "running", seed=seed, config_hash=config_hash)
    write_atomically(folder / CONFIG, to_yaml({"seed": seed, **config}))


def end_run(folder: Path, state: State, error: str = "") -> None:
    """Note how a run ended.

    Args:
        folder: the run's folder.
        state: how it ended.
        error: what went wrong, kept in ``error.txt``; empty for nothing.
    """
    if error:
        write_atomically(folder / ERROR, error.rstrip("\n") + "\n")
    write_status(folder, state)


def write_status(folder: Path, state: State, **more: Any) -> None:
    """Write ``status.json``: the state, the steps recorded so far, versions, and ``more``.

    What an earlier status of the same folder said is kept, except when a run starts.
    """
    rows = read_metrics(folder / METRICS)
    before = {} if state == "running" else read_status(folder)
    status = {
        **before,
        **more,
        "state": state,
        "steps": int(rows[-1]["step"] or 0) if rows else 0,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": _versions(),
    }
    write_atomically(folder / STATUS, json.dumps(status, indent=2) + "\n")


def read_status(folder: Path) -> dict[str, Any]:
    """Read ``status.json``; empty where there is none, or none that can be read."""
    try:
        status = json.loads((folder / STATUS).read_text())
    except (OSError, ValueError):
        return {}
    return typing.cast(dict[str, Any], status) if isinstance(status, dict) else {}


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration that a run was started with, without its seed.

    Empty where there is none, or none that can be read.
    """
    try:
        config = yaml.safe_load((folder / CONFIG).read_text())
    except (OSError, yaml.YAMLError):
        return {}
    if not isinstance(config, dict):
        return {}
    config.pop("seed", None)
    return config


def run_folders(folder: Path) -> list[Path]:
    """All run folders below a suite's folder, by benchmark, learner and seed."""
    found = [path.parent for path in folder.glob(f"*/*/seed-*/{STATUS}")]
    found = [path for path in found if path.name[5:].isdecimal()]
    return sorted(found, key=lambda path: (*path.parts[:-1], int(path.name[5:])))


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, finds the old one or the new one whole."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def to_yaml(plain: Mapping[str, Any]) -> str:
    """Plain data as YAML text, in the order given."""
    return yaml.safe_dump(dict(plain), sort_keys=False, default_flow_style=None, width=100)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("clrl", "numpy", "torch")}
