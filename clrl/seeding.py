"""Named random generators: every random choice of a run comes from (seed, purpose).

A member's generators depend on its own seed and on what they are for, and on nothing
else: not on how many members run beside it, nor on the order in which generators are
made.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_sequence(seed: int, purpose: str) -> np.random.SeedSequence:
    """The source of randomness for one purpose of one run.

    Args:
        seed: the run's seed, an integer >= 0.
        purpose: what the numbers are for, such as ``"stream/tasks"``; any text.

    Returns:
        A NumPy seed sequence; different purposes give independent streams.
    """
    digest = hashlib.sha256(purpose.encode()).digest()
    words = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return np.random.SeedSequence(entropy=seed, spawn_key=words)


def numpy_generator(seed: int, purpose: str) -> np.random.Generator:
    """A NumPy generator (PCG64) for one purpose of one run."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, purpose)))


def derived_seed(seed: int, purpose: str) -> int:
    """A 63-bit integer for libraries that take a plain seed (``torch.Generator``)."""
    low, high = (int(word) for word in seed_sequence(seed, purpose).generate_state(2))
    return (high << 32 | low) & (2**63 - 1)
