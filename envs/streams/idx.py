"""Reading IDX files, the format of MNIST.

An IDX file is two zero bytes, a type code (8: unsigned byte), the number of dimensions,
each dimension as a big-endian 32-bit integer, then the values in C order. Source: "The
IDX file format", on the MNIST home page of LeCun, Cortes and Burges.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clrl.errors import UsageError

# Unsigned bytes in three dimensions and in one.
_MAGIC = {"images": "00000803", "labels": "00000801"}


def read_idx(path: Path, content: Literal["images", "labels"], md5: str) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes and check it.

    Args:
        path: the file; gzip if its name ends in ``.gz``.
        content: ``images`` [N, height, width] or ``labels`` [N].
        md5: hexadecimal MD5 of the uncompressed file. How it was compressed does not matter.

    Returns:
        uint8 array of the shape that the file states.

    Raises:
        UsageError: the file cannot be read, is no gzip or IDX file, holds something else,
            is cut short or too long, or has another hash; the message names the file.
    """
    raw = _read_bytes(path)
    magic = raw[:4].hex()
    if magic != _MAGIC[content]:
        other = {number: kind for kind, number in _MAGIC.items()}.get(magic)
        found = f"this one holds {other}" if other else f"this one begins {magic or 'empty'}"
        raise UsageError(
            f"{path}: expected an IDX file of {content}, beginning {_MAGIC[content]}; {found}"
        )
    header = 4 + 4 * raw[3]
    if len(raw) < header:
        raise UsageError(f"{path}: truncated: ends within its header of {header} bytes")
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, header, 4))
    expected = header + math.prod(shape)
    if len(raw) != expected:
        what = "truncated" if len(raw) < expected else "too long"
        raise UsageError(
            f"{path}: {what}: {len(raw)} bytes uncompressed, its header says {expected}"
        )
    digest = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if digest != md5:
        raise UsageError(f"{path}: MD5 of the uncompressed content is {digest}, expected {md5}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    """The file's uncompressed bytes."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except EOFError as error:
        raise UsageError(f"{path}: truncated gzip file") from error
    except gzip.BadGzipFile as error:
        raise UsageError(f"{path}: not an intact gzip file: {error}") from error
    except zlib.error as error:
        raise UsageError(f"{path}: damaged gzip file: {error}") from error
