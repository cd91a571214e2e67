"""The process's global generators, which Stable-Baselines3 draws from."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def own_generators() -> Iterator[None]:
    """Leave the process's global generators as they were.

    Stable-Baselines3 seeds and draws from those of Python, NumPy and torch. A learner is made and
    trained inside of this, so that nothing but its seed decides what it draws, and nobody else
    notices.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def generators() -> dict[str, Any]:
    """Where the process's global generators are, as plain values."""
    version, numbers, spare = random.getstate()
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), spare],
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state(),
    }


def load_generators(state: Mapping[str, Any]) -> None:
    """Set the process's global generators to what `generators` gave."""
    version, numbers, spare = state["python"]
    random.setstate((version, tuple(numbers), spare))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
