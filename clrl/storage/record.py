"""What a run leaves on disk, and the only code that writes it.

``metrics.jsonl`` is canonical: a JSON object a line. The TensorBoard event file beside it
is made from the same values. ``status.json`` says how far a run has come and what it was made
with, ``config.yaml`` what it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import yaml

from clrl.errors import UsageError
from clrl.storage import files
from clrl.storage.provenance import provenance

METRICS = "metrics.jsonl"
STATUS = "status.json"
CONFIG = "config.yaml"
ERROR = "error.txt"
EVENTS = "events.out.tfevents."

State = Literal["running", "finished", "diverged", "preempted", "failed"]
DONE: tuple[State, ...] = ("finished", "diverged")
"""The states of runs that are not to be done again."""


Row = dict[str, float | None]
Position = Mapping[str, Any]
"""How far a ``metrics.jsonl`` had come: its ``size`` in bytes, and their ``sha256``."""


class Unlike(Exception):
    """A ``metrics.jsonl`` does not begin with what it once held: one line that names it."""


class Recorder:
    """Writes the metrics of one run.

    Every call of `write` reaches the file as one whole line, so that a process killed at any
    time leaves a readable file.

    Args:
        folder: the run's folder, which exists.
        position: where to go on; what is in the files behind it is cut off. None to begin
            anew.

    Raises:
        Unlike: ``metrics.jsonl`` does not hold what it held at the position; nothing is changed.
        StorageError: the files cannot be written.
    """

    def __init__(self, folder: Path, position: Position | None = None) -> None:
        path = folder / METRICS
        kept = b"" if position is None else _held(path, position)
        rows = [json.loads(line) for line in kept.splitlines()]
        self._digest = hashlib.sha256(kept)
        self._size = len(kept)
        self._lines = files.Appender(path, self._size)
        self._events = _EventFile(folder, rows)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line of metrics.

        Args:
            step: examples seen so far.
            values: tag to value. A value that is not finite becomes null in the line, and
                is left out of the event file.

        Raises:
            StorageError: it cannot be written.
        """
        finite = {tag: value for tag, value in values.items() if math.isfinite(value)}
        row = {"step": step, **{tag: finite.get(tag) for tag in values}}
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        self._lines.write(line)
        self._digest.update(line)
        self._size += len(line)
        self._events.write(step, finite, time.time())

    def position(self) -> Position:
        """How far the metrics have come."""
        return {"size": self._size, "sha256": self._digest.hexdigest()}

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        self._lines.sync()

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


def _held(path: Path, position: Position) -> bytes:
    """What a file held at a position."""
    with files.naming(path):
        content = path.read_bytes() if path.exists() else b""
    kept = content[: position["size"]]
    if hashlib.sha256(kept).hexdigest() != position["sha256"]:
        raise Unlike(f"{path}: not what it was when the checkpoint was written")
    return kept


class _EventFile:
    """A TensorBoard event file, written record by record without threads.

    It takes the place of older ones. A reader that is open takes up the new file and drops
    what the old ones held from its first step on.

    Args:
        folder: where it is written.
        rows: what it is to hold at the start. Their times are what they would be had the run
            not stopped, as far as ``time/elapsed`` tells.
    """

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import (
            RecordWriter,
        )

        older = sorted(folder.glob(EVENTS + "*"))
        self._event = Event
        self._file = files.Appender(folder / f"{EVENTS}{time.time_ns() // 1000}.clrl")
        self._records = RecordWriter(self._file)
        now = time.time()
        ages = [0.0]
        for row in rows:
            ages.append(row.get("time/elapsed") or ages[-1])
        self._append(Event(wall_time=now - ages[-1], file_version="brain.Event:2"))
        for row, age in zip(rows, ages[1:], strict=True):
            values = {tag: value for tag, value in row.items() if tag != "step"}
            finite = {tag: value for tag, value in values.items() if value is not None}
            self.write(int(row["step"] or 0), finite, now - ages[-1] + age)
        for path in older:
            with files.naming(path):
                path.unlink()

    def write(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        event = self._event(wall_time=wall_time, step=step)
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._append(event)

    def _append(self, event: Any) -> None:
        self._records.write(event.SerializeToString())

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[Row]:
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


def start_run(
    folder: Path,
    seed: int,
    config: Mapping[str, Any],
    config_hash: str,
    device: str = "cpu",
    **more: Any,
) -> None:
    """Make a run's folder ready, and say what will run, and with what.

    Args:
        folder: the run's folder; it is made where it is missing.
        seed: the run's seed.
        config: the run's complete configuration as plain data.
        config_hash: its hash.
        device: what learners compute on.
        more: what else the status is to say.

    Raises:
        StorageError: the folder cannot be written.
    """
    files.make_folder(folder)
    with files.naming(folder / ERROR):
        (folder / ERROR).unlink(missing_ok=True)
    files.write_atomically(folder / CONFIG, to_yaml({"seed": seed, **config}).encode())
    made_with = dict(provenance(device))
    status = {"seed": seed, "config_hash": config_hash, "provenance": made_with, **more}
    _write_status(folder, "running", status)


def add_provenance(folder: Path, **values: str) -> None:
    """Say more of what a run is made with; nothing where its status is kept elsewhere.

    Raises:
        StorageError: the status cannot be written.
    """
    status = readable_status(folder)
    if status:
        status["provenance"] = {**status.get("provenance", {}), **values}
        _write_json(folder / STATUS, status)


def end_run(folder: Path, state: State, error: str = "") -> None:
    """Note how a run ended.

    Args:
        folder: the run's folder.
        state: how it ended.
        error: what went wrong, kept in ``error.txt``; empty for nothing.

    Raises:
        StorageError: the folder cannot be written.
    """
    if error:
        files.write_atomically(folder / ERROR, (error.rstrip("\n") + "\n").encode())
    _write_status(folder, state, read_status(folder))


def _write_status(folder: Path, state: State, more: Mapping[str, Any]) -> None:
    """Write ``status.json``: the state, the steps recorded so far, the time, and ``more``."""
    status = {
        **more,
        "state": state,
        "steps": _last_step(folder / METRICS),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    _write_json(folder / STATUS, status)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    files.write_atomically(path, (json.dumps(values, indent=2) + "\n").encode())


def _last_step(path: Path) -> int:
    """The last step in a metrics file; 0 where it holds something else, which is found later."""
    try:
        rows = read_metrics(path)
        return int(rows[-1]["step"] or 0) if rows else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def read_status(folder: Path) -> dict[str, Any]:
    """Read ``status.json``; empty where there is none.

    Raises:
        UsageError: there is one that cannot be read.
    """
    path = folder / STATUS
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: expected a run's status, but it cannot be read: {error}"
        ) from error
    if not isinstance(status, dict) or not isinstance(status.get("provenance", {}), dict):
        raise UsageError(f"{path}: expected a run's status, a JSON object")
    return typing.cast(dict[str, Any], status)


def readable_status(folder: Path) -> dict[str, Any]:
    """`read_status` for those who only look on: empty also where it cannot be read."""
    try:
        return read_status(folder)
    except UsageError:
        return {}


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration that a run was started with, without its seed.

    Empty where there is none, or none that can be read.
    """
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
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


def to_yaml(plain: Mapping[str, Any]) -> str:
    """Plain data as YAML text, in the order given."""
    return yaml.safe_dump(dict(plain), sort_keys=False, default_flow_style=None, width=100)
