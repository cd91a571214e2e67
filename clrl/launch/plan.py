"""What is left to do in a suite's folder, found out without writing anything."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clrl import machine
from clrl.errors import UsageError
from clrl.launch.jobs import Job
from clrl.settings.config import RunConfig, config_hash, differences, to_dict
from clrl.storage import checkpoint, files, record
from clrl.storage.provenance import changes, provenance

MARKER = "suite.yaml"
"""The file by which a folder is known as a suite's."""
LOCK = ".lock"
_MOMENT = 1.0  # seconds that those who have just been killed get to leave


def remaining(populations: Sequence[Job], out: Path, force: bool = False) -> list[Job]:
    """The runs of populations that are not finished yet.

    Populations that were interrupted or failed go on from their checkpoints, with the seeds they
    were begun with; what has no checkpoint is done from the start.

    Args:
        populations: all that the folder is to hold.
        out: the suite's folder.
        force: go on from a checkpoint also where settings, versions or threads have changed.

    Returns:
        What is left: of each population the part that is new, and the parts that were begun.

    Raises:
        UsageError: ``out`` cannot be a suite's folder, a run in it has other settings, or was
            begun under other conditions.
    """
    check_folder(out)
    return [job for population in populations for job in _left(population, force)]


def _left(population: Job, force: bool) -> list[Job]:
    new: dict[int, Path] = {}
    begun: dict[tuple[int, ...], list[str]] = {}
    for seed, folder in population.folders.items():
        status = _status(folder)
        state = status.get("state")
        if state is None:
            new[seed] = folder
            continue
        settings = _other_settings(folder, status, population.config)
        if state in record.DONE:
            if settings:
                raise UsageError(
                    f"{folder}: this run has other settings: {_few(settings)}; choose another --out"
                )
            continue
        group = _begun_with(seed, folder, status)
        if not group or (state == "failed" and settings and not force):
            if settings and state != "failed" and not force:
                raise UsageError(
                    f"{folder}: this run has other settings: {_few(settings)}; choose another "
                    "--out, or add --force to do it again"
                )
            new[seed] = folder
            continue
        changed = settings + changes(status.get("provenance", {}), provenance(population.device))
        if changed and not force:
            raise UsageError(
                f"{folder}: this run was begun under other conditions: {_few(changed)}; go back "
                "to those, choose another --out, or add --force to go on all the same"
            )
        begun[group] = changed
    parts = [
        replace(
            population,
            folders={seed: _sibling(population, seed) for seed in group},
            resumes=True,
            forced=tuple(changed),
        )
        for group, changed in begun.items()
    ]
    new = {seed: folder for seed, folder in new.items() if not any(seed in one for one in begun)}
    return parts + ([replace(population, folders=new)] if new else [])


def _begun_with(seed: int, folder: Path, status: Mapping[str, Any]) -> tuple[int, ...]:
    """The seeds that share a run's checkpoint; none where there is no checkpoint of theirs."""
    group = status.get("population")
    if not isinstance(group, list) or not all(type(one) is int and one >= 0 for one in group):
        return ()
    if seed not in group:
        return ()
    home = folder.with_name(f"seed-{group[0]}")
    same = record.read_status(home).get("population") == group  # it may have been begun anew
    return tuple(group) if same and checkpoint.exists(home) else ()


def _sibling(population: Job, seed: int) -> Path:
    """A seed's folder, also of a seed that is not asked for but was begun with the others."""
    return next(iter(population.folders.values())).with_name(f"seed-{seed}")


def _status(folder: Path) -> dict[str, Any]:
    for path in (folder, folder.parent, folder.parent.parent):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path}: expected a folder, but it is a file")
    return record.read_status(folder)


def _other_settings(folder: Path, status: Mapping[str, Any], config: RunConfig) -> list[str]:
    """The settings in which a run differs from what it is to be."""
    if status.get("config_hash") == config_hash(config):
        return []
    return differences(record.read_config(folder), to_dict(config)) or ["unknown ones"]


def _few(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return ", ".join(texts[:3]) + more


def check_folder(out: Path) -> None:
    """See whether a folder can be a suite's: new, empty, or one already.

    Raises:
        UsageError: it cannot.
    """
    for path in (out, *out.absolute().parents):
        if path.is_dir():
            break
        if path.exists() or path.is_symlink():
            raise UsageError(f"--out {out}: expected a folder, but {path} is a file")
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: expected a folder to write to, but {path} is read-only")
    if out.is_dir() and not (out / MARKER).is_file():
        others = sorted(entry.name for entry in out.iterdir() if entry.name != LOCK)
        if others:
            raise UsageError(
                f"--out {out}: expected a new or empty folder, or one that clrl made "
                f"(with {MARKER}); it holds {others[0]!r}"
            )


@contextlib.contextmanager
def claimed(out: Path, suite: str) -> Iterator[int | None]:
    """Make a folder a suite's, and keep other launchers out of it for the while.

    Args:
        out: the folder; it is made where it is missing.
        suite: the content of its ``suite.yaml``.

    Yields:
        The lock's file descriptor, or None; see `clrl.machine.locked`.

    Raises:
        UsageError: another process is at work there.
        StorageError: the folder cannot be written.
    """
    files.make_folder(out)
    with contextlib.ExitStack() as stack:
        try:
            with files.naming(out / LOCK):
                lock = stack.enter_context(machine.locked(out / LOCK, _MOMENT))
        except machine.Taken:
            raise UsageError(f"--out {out}: another clrl is at work in this folder") from None
        mark(out, suite)
        yield lock


def mark(out: Path, suite: str, anew: bool = True) -> None:
    """Write a suite's ``suite.yaml``; unless anew, only where it is missing.

    Raises:
        StorageError: the folder cannot be written.
    """
    if anew or not (out / MARKER).exists():
        files.make_folder(out)
        files.write_atomically(out / MARKER, suite.encode())
