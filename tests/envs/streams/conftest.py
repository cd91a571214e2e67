"""Tiny data, and IDX files written from scratch."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from clrl.envs.streams import data

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx_bytes(values: np.ndarray) -> bytes:
    header = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


@pytest.fixture
def tiny_files() -> dict[str, bytes]:
    """A data set of two images of 2 x 3 pixels and its labels, as IDX content."""
    images = np.array([[[0, 51, 102], [153, 204, 255]], [[255, 0, 255], [0, 255, 0]]])
    return {IMAGES: idx_bytes(images), LABELS: idx_bytes(np.array([7, 2]))}


@pytest.fixture
def tiny_mnist(
    tiny_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, bytes]:
    """The tiny files take MNIST's place; nothing is set, nothing cached, no network.

    Returns what the mirror would send, by file name.
    """
    mirror = {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in tiny_files.items()}
    for name, raw in tiny_files.items():
        monkeypatch.setitem(data._MD5, name, hashlib.md5(raw).hexdigest())
    for name, raw in mirror.items():
        monkeypatch.setitem(data._MIRROR_MD5, name, hashlib.md5(raw).hexdigest())
    monkeypatch.delenv(data.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(data, "cache_folder", lambda: tmp_path / "cache")

    import pooch

    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("went to the network")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", no_network)
    return mirror
