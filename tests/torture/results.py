"""What a run ended with, as digests, and whether its files agree with each other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from clrl.storage import checkpoint, record


def digest(value: Any) -> str:
    """SHA-256 of plain values and tensors, whatever the order of keys."""
    digest = hashlib.sha256()
    _feed(value, digest)
    return digest.hexdigest()


def _feed(value: Any, digest: Any) -> None:
    if isinstance(value, dict):
        digest.update(b"{%d" % len(value))
        for key in sorted(value, key=repr):
            digest.update(repr(key).encode())
            _feed(value[key], digest)
    elif isinstance(value, list | tuple):
        digest.update(b"[%d" % len(value))
        for one in value:
            _feed(one, digest)
    elif isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    else:
        digest.update(repr(value).encode())


def of_folder(out: Path) -> dict[str, str]:
    """What the runs below a folder ended with, by file.

    Of a checkpoint, the whole state of its training loop, in parts: parameters, optimizers,
    environments, generators. Of metrics, all but the times.
    """
    found = {}
    for path in sorted(out.rglob(checkpoint.NAME)):
        for part, value in _parts(checkpoint.read(path)["loop"]):
            found[f"{path.relative_to(out)} {part}"] = digest(value)
    for path in sorted(out.rglob(record.METRICS)):
        found[str(path.relative_to(out))] = digest(untimed(path))
    return found


def of_runs(out: Path) -> dict[str, str]:
    """The same of each run by itself, whatever seeds it was trained with.

    Parameters, and metrics without times. Of a population of the engine's alone.
    """
    found = {}
    for path in sorted(out.rglob(checkpoint.NAME)):
        population = checkpoint.read(path)["loop"]["agent"]
        population = population.get("population", population)
        for seed, row in zip(
            record.read_status(path.parent)["population"], population["rows"], strict=True
        ):
            found[f"{path.parent.with_name(f'seed-{seed}').relative_to(out)}"] = digest(row)
    for path in sorted(out.rglob(record.METRICS)):
        found[str(path.relative_to(out))] = digest(untimed(path))
    return found


def _parts(loop: dict[str, Any]) -> list[tuple[str, Any]]:
    """The state of a training loop, with the population's parameters and optimizers apart."""
    agent = dict(loop.get("agent", {}))
    population = agent.pop("population", agent)
    rest = {**loop, "agent": agent if population is not agent else None}
    parts = [(f"population {name}", value) for name, value in population.items()]
    return parts + list(rest.items())


def untimed(path: Path) -> list[dict[str, float | None]]:
    """The lines of a metrics file without the times."""
    rows = record.read_metrics(path)
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def check_files(out: Path) -> None:
    """See that each run holds what a finished run holds: each step once, in both files.

    Raises:
        AssertionError: it does not.
    """
    for status in sorted(out.rglob(record.STATUS)):
        folder = status.parent
        rows = record.read_metrics(folder / record.METRICS)
        lines = (folder / record.METRICS).read_text().splitlines()
        assert len(rows) == len(lines), f"{folder}: a line that is cut off"
        steps = [json.dumps(row) for row in rows]
        assert len(set(steps)) == len(steps), f"{folder}: a line twice"
        assert sorted(row["step"] or 0 for row in rows) == [row["step"] for row in rows], folder
        (events,) = folder.glob(record.EVENTS + "*")
        seen = [
            (event.step, {one.tag: one.tensor.float_val[0] for one in event.summary.value})
            for event in EventFileLoader(str(events)).Load()
            if event.HasField("summary")
        ]
        wanted = [
            (
                row["step"],
                {tag for tag, value in row.items() if tag != "step" and value is not None},
            )
            for row in rows
        ]
        assert [(step, set(values)) for step, values in seen] == wanted, f"{events}: other steps"
        assert not list(folder.glob("checkpoint*.tmp")), f"{folder}: something is left over"
