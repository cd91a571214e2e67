"""The checkpoint of a population: one file, whole and verified, and the one before it.

A file is a line that says what it is, the SHA-256 of the rest, and the rest: plain values and
tensors as `torch.save` writes them. It is checked before it is read, and read by a reader that
knows tensors and plain values and can call nothing else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from clrl import machine
from clrl.errors import UsageError
from clrl.options import PositiveFloat, PositiveInt
from clrl.storage import files

NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
_HEAD = b"clrl checkpoint 5\n"
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Keeping:
    """When checkpoints are written, besides at the end.

    Attributes:
        minutes: between two of them.
        steps: between two of them, as steps of each learner; None for any number.
    """

    minutes: PositiveFloat = 5.0
    steps: PositiveInt | None = None


class Damaged(Exception):
    """A file is not the checkpoint that was written: one line that names it and says why."""


def pack(state: Mapping[str, Any]) -> bytes:
    """A state as a file's content.

    Args:
        state: plain values (dict, list, tuple, str, int, float, bool, None) and tensors.

    Raises:
        UsageError: it holds something else that cannot be written. What can be written and yet
            not be read is found by `unpack` alone.
    """
    import torch  # not with this module: what plans runs must stay quick

    body = io.BytesIO()
    try:
        torch.save(dict(state), body)
    except (pickle.PicklingError, AttributeError, TypeError) as error:  # as pickle is in the mood
        raise UsageError(f"expected plain values and tensors in a state: {error}") from error
    content = body.getbuffer()
    return b"".join((_HEAD, hashlib.sha256(content).digest(), content))


def unpack(content: bytes, path: Path) -> dict[str, Any]:
    """The state that a file's content holds, its tensors on the CPU.

    Args:
        content: what is in the file.
        path: what to call it in messages.

    Raises:
        Damaged: it is not what `pack` gave, or holds anything but plain values and tensors.
    """
    import torch

    start = len(_HEAD) + _DIGEST
    if len(content) < start or not content.startswith(_HEAD):
        raise Damaged(f"{path}: not a checkpoint of this version")
    if hashlib.sha256(memoryview(content)[start:]).digest() != content[len(_HEAD) : start]:
        raise Damaged(f"{path}: damaged (its SHA-256 differs)")
    try:
        state = torch.load(io.BytesIO(content[start:]), map_location="cpu", weights_only=True)
    except Exception as error:  # what a reader makes of bytes that somebody else made
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Damaged(f"{path}: not plain values and tensors: {reason}") from error
    if not isinstance(state, dict):
        raise Damaged(f"{path}: not a mapping")
    return cast(dict[str, Any], state)


def read(path: Path) -> dict[str, Any]:
    """The state in a file.

    Raises:
        Damaged: see `unpack`.
        StorageError: the system does not let it be read.
    """
    with files.naming(path):
        content = path.read_bytes()
    return unpack(content, path)


def write(folder: Path, content: bytes) -> None:
    """Make content the folder's checkpoint, and what was the checkpoint the previous one.

    At every instant one of both is there and whole.

    Raises:
        StorageError: it cannot be written; both are as they were.
    """
    path = folder / NAME
    temporary = files.write_beside(path, content)
    with files.naming(path):
        if path.exists():
            machine.replace(path, folder / PREVIOUS)
        machine.replace(temporary, path)
        machine.sync_folder(folder)


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint, or a previous one."""
    return (folder / NAME).exists() or (folder / PREVIOUS).exists()


def remove(folder: Path) -> None:
    """Remove both files, where they are there."""
    for path in candidates(folder):
        with files.naming(path):
            path.unlink()


def candidates(folder: Path) -> Iterator[Path]:
    """The files to try, the newest first."""
    return (path for path in (folder / NAME, folder / PREVIOUS) if path.exists())
