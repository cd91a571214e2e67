"""The data sets behind the permuted streams, each prepared once per process.

MNIST is looked for in three places, and the first that applies is used:

1. the folder that the environment variable ``CLRL_DATA`` names;
2. the user's cache folder, `cache_folder`;
3. a public mirror, from which it is downloaded into the cache.

In either folder the IDX files lie directly or in ``mnist/``, gzip-compressed or not.
Whatever the source, the MD5 of the uncompressed content is what decides whether a file
is MNIST: the compressed files of different sources differ.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from clrl.envs.streams.idx import read_idx
from clrl.envs.streams.options import InputRange
from clrl.errors import UsageError

ENVIRONMENT_VARIABLE = "CLRL_DATA"
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
"""The mirror that torchvision uses."""
TIMEOUT = 30.0
"""Seconds to wait for the mirror to connect, and for each piece it sends."""

_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
# Of the compressed files on the mirror.
_MIRROR_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled inputs in memory, shared by all streams and therefore read-only.

    Attributes:
        inputs: float32 [N, input_size].
        labels: int64 [N], from 0 to `num_classes` - 1.
        num_classes: how many classes there are.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    num_classes: int

    def __post_init__(self) -> None:
        """Guard the arrays against being written."""
        self.inputs.flags.writeable = False
        self.labels.flags.writeable = False


@functools.cache
def mnist(input_range: InputRange, split: Literal["train", "test"], /) -> Dataset:
    """MNIST: 60,000 (train) or 10,000 (test) images of 28 x 28 pixels in 10 classes.

    Read once per process for each range and split; a later change of ``CLRL_DATA`` has no
    effect on what was read.

    Args:
        input_range: where the pixels 0 to 255 are scaled to.
        split: which part.

    Returns:
        The data set, inputs [60000 or 10000, 784].

    Raises:
        UsageError: the files are nowhere to be had, or are not MNIST.
    """
    images, labels = mnist_files(_NAMES[split])
    return Dataset(
        scaled(read_idx(images, "images", _MD5[_NAMES[split][0]]), 255, input_range),
        read_idx(labels, "labels", _MD5[_NAMES[split][1]]).astype(np.int64),
        num_classes=10,
    )


@functools.cache
def digits(input_range: InputRange, /) -> Dataset:
    """The 1,797 digits of 8 x 8 pixels in 10 classes that come with scikit-learn.

    The test part of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998).
    Read once per process for each range.

    Args:
        input_range: where the pixels 0 to 16 are scaled to.

    Returns:
        The data set, inputs [1797, 64].
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return Dataset(
        scaled(pixels.astype(np.uint8), 16, input_range), labels.astype(np.int64), num_classes=10
    )


def scaled(pixels: NDArray[np.uint8], top: int, input_range: InputRange) -> NDArray[np.float32]:
    """Flatten images and scale their pixels.

    Args:
        pixels: uint8 [N, ...], values from 0 to `top`.
        top: the value of a white pixel.
        input_range: ``symmetric`` maps 0..top to [-1, 1], ``unit`` to [0, 1].

    Returns:
        float32 [N, pixels of an image], each value rounded once.

    Raises:
        UsageError: there is no such range.
    """
    if input_range not in get_args(InputRange):
        known = ", ".join(get_args(InputRange))
        raise UsageError(f"input_range: expected one of {known}, got {input_range!r}")
    levels = np.arange(top + 1) / top
    if input_range == "symmetric":
        levels = 2 * levels - 1
    flat = pixels.reshape(len(pixels), -1)
    return levels.astype(np.float32)[flat]


def cache_folder() -> Path:
    """Where downloads are kept: the operating system's cache folder for this user."""
    return Path(_pooch().os_cache("clrl"))


def mnist_files(names: Sequence[str]) -> list[Path]:
    """Find MNIST files, or fetch them.

    Args:
        names: their names without ``.gz``.

    Returns:
        Their paths, in the same order; a path that ends in ``.gz`` is compressed. The
        content is not checked here.

    Raises:
        UsageError: ``CLRL_DATA`` is set and does not hold them; or it is not set, they are
            not in the cache, and the download failed.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        if not Path(named).is_dir():
            raise UsageError(f"{ENVIRONMENT_VARIABLE}={named}: there is no such folder")
        found = _look_in(Path(named), names)
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise UsageError(
                f"{ENVIRONMENT_VARIABLE}={named}: no {' and no '.join(missing)} (or the same "
                "with .gz) in that folder or in its mnist/"
            )
    else:
        found = _look_in(cache_folder(), names)
    return [path or _download(name) for name, path in found.items()]


def _look_in(folder: Path, names: Sequence[str]) -> dict[str, Path | None]:
    """Each name's file in `folder` or its ``mnist/``, plain or compressed."""
    found: dict[str, Path | None] = {}
    for name in names:
        places = (folder / sub / file for sub in ("", "mnist") for file in (name, f"{name}.gz"))
        found[name] = next((place for place in places if place.is_file()), None)
    return found


def _download(name: str) -> Path:
    """Fetch one file into the cache; it appears there only whole and with the right hash."""
    pooch = _pooch()
    file, folder = f"{name}.gz", cache_folder() / "mnist"
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # it announces each download otherwise
    try:
        return Path(
            pooch.retrieve(
                MIRROR + file,
                known_hash=f"md5:{_MIRROR_MD5[file]}",
                fname=file,
                path=folder,
                downloader=pooch.HTTPDownloader(timeout=TIMEOUT),
            )
        )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong hash is not
        raise UsageError(
            f"MNIST: no {name} in the cache, and downloading it failed ({type(error).__name__}); "
            f"either set {ENVIRONMENT_VARIABLE} to a folder with the MNIST files, or put them "
            f"into {folder}, or go online"
        ) from error
    finally:
        logger.setLevel(level)


def _pooch() -> Any:
    """The library that downloads; imported where needed, as most runs do not."""
    return importlib.import_module("pooch")
