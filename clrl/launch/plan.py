"""What is left to do in a suite's folder, found out without writing anything."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from clrl import record
from clrl.config import RunConfig, config_hash, differences, to_dict
from clrl.errors import UsageError
from clrl.launch.jobs import Job

MARKER = "suite.yaml"
"""The file by which a folder is known as a suite's."""
LOCK = ".lock"


def remaining(populations: Sequence[Job], out: Path) -> list[Job]:
    """The runs of populations that are not finished yet.

    Runs that were interrupted or failed count as not finished: they are done again from
    the start.

    Args:
        populations: all that the folder is to hold.
        out: the suite's folder.

    Returns:
        The populations with the seeds that are left; populations without any are left out.

    Raises:
        UsageError: ``out`` cannot be a suite's folder, or a run in it has other settings.
    """
    check_folder(out)
    left = []
    for job in populations:
        digest = config_hash(job.config)
        folders = {
            seed: folder
            for seed, folder in job.folders.items()
            if not _is_done(folder, job.config, digest)
        }
        if folders:
            left.append(replace(job, folders=folders))
    return left


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


def _is_done(folder: Path, config: RunConfig, digest: str) -> bool:
    for path in (folder, folder.parent, folder.parent.parent):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path}: expected a folder, but it is a file")
    status = record.read_status(folder)
    state = status.get("state")
    if state is None or state == "failed":
        return False
    if status.get("config_hash") != digest:
        changes = differences(record.read_config(folder), to_dict(config))
        shown = ", ".join(changes[:3]) or "unknown ones"
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise UsageError(
            f"{folder}: this run has other settings: {shown}{more}; choose another --out"
        )
    return state in record.DONE


@contextlib.contextmanager
def claimed(out: Path, suite: str) -> Iterator[None]:
    """Make a folder a suite's, and keep other launchers out of it for the while.

    Args:
        out: the folder; it is made where it is missing.
        suite: the content of its ``suite.yaml``.

    Raises:
        UsageError: another process is at work there.
    """
    out.mkdir(parents=True, exist_ok=True)
    with open(out / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"--out {out}: another clrl is at work in this folder") from None
        record.write_atomically(out / MARKER, suite)
        yield
