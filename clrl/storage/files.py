"""Files that are whole at every instant, whatever happens to the process or the machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from clrl import machine
from clrl.errors import StorageError

_WRITTEN = os.O_WRONLY | os.O_CREAT | machine.BINARY
_ANEW = _WRITTEN | os.O_TRUNC
_AT_THE_END = _WRITTEN | os.O_APPEND


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses inside into a `StorageError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old one or the new one whole.

    The content reaches the disk before the name does, under ``NAME.tmp`` until then.

    Raises:
        StorageError: it cannot be written; the old one is as it was.
    """
    temporary = write_beside(path, content)
    with naming(path):
        machine.replace(temporary, path)
        machine.sync_folder(path.parent)


def write_beside(path: Path, content: bytes) -> Path:
    """Write ``NAME.tmp`` beside a file, to the disk, and return its path.

    Raises:
        StorageError: it cannot be written; nothing is left of it.
    """
    temporary = path.with_name(path.name + ".tmp")
    with naming(path):
        try:
            file = os.open(temporary, _ANEW, 0o666)
            try:
                _write_all(file, content)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    return temporary


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises:
        StorageError: it cannot be made.
    """
    with naming(path):
        path.mkdir(parents=True, exist_ok=True)


class Appender:
    """A file that grows at its end.

    Args:
        path: the file; it is made where it is missing.
        size: what to keep of it; the rest is cut off.

    Raises:
        StorageError: it cannot be opened.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        with naming(path):
            self._file = os.open(path, _AT_THE_END, 0o666)
            os.ftruncate(self._file, size)

    def write(self, content: bytes) -> None:
        """Append, without a buffer: what a killed process had written is there.

        Raises:
            StorageError: there is no room, or the file was deleted.
        """
        with naming(self.path):
            if not os.fstat(self._file).st_nlink:
                raise FileNotFoundError(None, "it was deleted while it was being written")
            _write_all(self._file, content)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        with naming(self.path):
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write_all(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:  # a nearly full disk takes a part
        rest = rest[os.write(file, rest) :]
