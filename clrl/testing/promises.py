"""What all checks share: promises and how they break, equality to the bit, global generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from clrl.errors import shown
from clrl.registry import Table, options_type_of

Subject = Callable[..., Any] | str
"""What is checked: a class, a function, or a name as a table knows it."""


class Broken(AssertionError):
    """A promise that does not hold: one line that says whose, which one, and where it broke."""


class Check:
    """The promises of one plug-in, one after another.

    Args:
        name: what to call the plug-in in messages.

    Attributes:
        held: the promises that were found to hold.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: list[str] = []

    @contextlib.contextmanager
    def promise(self, what: str) -> Iterator[None]:
        """Try one promise: whatever is raised inside breaks it.

        Raises:
            Broken: something was.
        """
        try:
            yield
        except Exception as error:
            text = (str(error).strip() or "no message").splitlines()[0]
            kind = "" if isinstance(error, Broken) else f"{type(error).__name__}: "
            raise Broken(f"{self.name}: {what}: {kind}{text}") from error
        self.held.append(what)

    def own_randomness(self, run: Callable[[], Any]) -> None:
        """The promise that the global generators of torch, NumPy and Python are let alone.

        Args:
            run: gives results that must not depend on them, and must not move them.
        """
        with self.promise("own randomness only"):
            results = []
            for seed in (1, 2):
                with global_generators(seed) as moved:
                    results.append(run())
                    if found := moved():
                        raise Broken(f"moves the global generator of {found}")
            if where := difference(*results):
                raise Broken(f"depends on a global generator, or differs each time, at {where}")


def load(subject: Subject, table: Table) -> tuple[Any, str]:
    """What is to be checked, and what to call it.

    Raises:
        UsageError: there is nothing of that name.
    """
    if isinstance(subject, str):
        return table.find(subject).load(), subject
    return subject, getattr(subject, "__name__", shown(subject))


def options_of(subject: Subject, table: Table) -> type:
    """The dataclass that describes the options; as for a user who names the plug-in."""
    if isinstance(subject, str):
        return table.find(subject).options_type()
    for entry in table:
        if entry.source == "built in" and entry.target.endswith(f":{subject.__name__}"):
            if entry.load() is subject:
                return entry.options_type()
    return options_type_of(subject)


@contextlib.contextmanager
def global_generators(seed: int) -> Iterator[Callable[[], str]]:
    """Seed all global generators, and put them back in the end.

    Yields:
        A function that names the generator that has moved since, if one has.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    start = _global_states()

    def moved() -> str:
        now = _global_states()
        return next((name for name in start if difference(start[name], now[name])), "")

    try:
        yield moved
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _global_states() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state(),
        "numpy": list(np.random.get_state()),
        "random": random.getstate(),
    }


def difference(one: Any, two: Any, place: str = "") -> str:
    """Where two results differ first, in words; empty where they are equal to the bit.

    Args:
        one: numbers, text, arrays, tensors, and dictionaries and lists of such.
        two: likewise.
        place: what the two are called.
    """
    here = place or "the first look"
    if isinstance(one, Mapping):
        if not isinstance(two, Mapping) or list(one) != list(two):
            return f"{here}'s keys"
        parts = [(f"{place}, {key}" if place else str(key), one[key], two[key]) for key in one]
    elif isinstance(one, list | tuple):
        if not isinstance(two, list | tuple) or len(one) != len(two):
            return f"{here}'s length"
        parts = [
            (f"{place}, {i}" if place else str(i), a, b)
            for i, (a, b) in enumerate(zip(one, two, strict=True))
        ]
    else:
        return "" if _same(one, two) else here
    return next(filter(None, (difference(a, b, name) for name, a, b in parts)), "")


def _same(one: Any, two: Any) -> bool:
    """Whether two arrays, or plain values, are equal; nan equals itself."""
    if isinstance(one, torch.Tensor | np.ndarray | float | np.generic):
        a, b = (np.asarray(x.detach() if isinstance(x, torch.Tensor) else x) for x in (one, two))
        floats = a.dtype.kind == "f" and b.dtype.kind == "f"
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=floats)
    return bool(one == two)
