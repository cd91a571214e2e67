from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from clrl.envs.streams.idx import read_idx
from clrl.errors import UsageError

IMAGES = bytes.fromhex("00000803 00000002 00000001 00000003") + bytes([1, 2, 3, 4, 5, 6])
LABELS = bytes.fromhex("00000801 00000002") + bytes([7, 9])


def md5(raw: bytes) -> str:
    return hashlib.md5(raw).hexdigest()


def write(folder: Path, raw: bytes, name: str = "some-file") -> Path:
    path = folder / name
    path.write_bytes(raw)
    return path


def test_reads_images_and_labels(tmp_path: Path) -> None:
    images = read_idx(write(tmp_path, IMAGES), "images", md5(IMAGES))
    labels = read_idx(write(tmp_path, LABELS), "labels", md5(LABELS))
    assert images.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(images, [[[1, 2, 3]], [[4, 5, 6]]])
    np.testing.assert_array_equal(labels, [7, 9])


@pytest.mark.parametrize("level", [1, 9])
def test_how_it_was_compressed_does_not_matter(tmp_path: Path, level: int) -> None:
    path = write(tmp_path, gzip.compress(LABELS, level, mtime=0), "some-file.gz")
    np.testing.assert_array_equal(read_idx(path, "labels", md5(LABELS)), [7, 9])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "begins empty"),
        (IMAGES[:3], "begins 000008"),
        (b"\x89PNG and so on", "begins 89504e47"),
        (bytes.fromhex("00000d03") + IMAGES[4:], "begins 00000d03"),  # floats
        (bytes.fromhex("00000802 00000001 00000001 05"), "begins 00000802"),  # two dimensions
        (gzip.compress(IMAGES, mtime=0), "begins 1f8b"),  # compressed, but the name says otherwise
        (LABELS, "this one holds labels"),
        (IMAGES[:10], "truncated: ends within its header of 16 bytes"),
        (IMAGES[:16], "truncated: 16 bytes uncompressed, its header says 22"),
        (IMAGES[:-1], "truncated: 21 bytes uncompressed, its header says 22"),
        (IMAGES + b"\0", "too long: 23 bytes uncompressed, its header says 22"),
        (
            struct.pack(">I3I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1),
            f"truncated: 16 bytes uncompressed, its header says {16 + (2**32 - 1) ** 3}",
        ),
        (IMAGES[:-1] + b"\0", "MD5 of the uncompressed content is "),
    ],
)
def test_refuses_by_name(tmp_path: Path, raw: bytes, message: str) -> None:
    path = write(tmp_path, raw)
    with pytest.raises(UsageError) as caught:
        read_idx(path, "images", md5(IMAGES))
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and message in text and "\n" not in text


def test_images_where_labels_are_expected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected an IDX file of labels.*this one holds images"):
        read_idx(write(tmp_path, IMAGES), "labels", md5(LABELS))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (IMAGES, "not an intact gzip file"),
        (gzip.compress(IMAGES, mtime=0)[:-12], "truncated gzip file"),
        (gzip.compress(IMAGES, mtime=0)[:-8] + bytes(8), "not an intact gzip file"),  # checksum
        (gzip.compress(IMAGES, mtime=0)[:10] + b"\xff" * 20, "damaged gzip file"),
    ],
)
def test_refuses_bad_gzip_by_name(tmp_path: Path, raw: bytes, message: str) -> None:
    path = write(tmp_path, raw, "some-file.gz")
    with pytest.raises(UsageError, match=message) as caught:
        read_idx(path, "images", md5(IMAGES))
    assert str(path) in str(caught.value)


def test_refuses_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent: cannot be read: No such file"):
        read_idx(tmp_path / "absent", "images", md5(IMAGES))
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_idx(tmp_path, "images", md5(IMAGES))
