"""Values as JSON keeps them, type and bits included."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl.errors import UsageError


def to_plain(value: Any) -> Any:
    """A value as plain ones, type and bits kept; see `from_plain` for the way back."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        items, shape = np.ravel(value).tolist(), list(value.shape)
        return {"type": kind, "dtype": value.dtype.str, "shape": shape, "items": items}
    if type(value) in (tuple, list):
        return {"type": type(value).__name__, "items": [to_plain(item) for item in value]}
    if type(value) is deque:
        items = [to_plain(item) for item in value]
        return {"type": "deque", "items": items, "maxlen": value.maxlen}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"type": "dict", "items": {key: to_plain(item) for key, item in value.items()}}
    raise UsageError(f"environment state: expected numbers, arrays of them or text, got {value!r}")


def from_plain(plain: Any) -> Any:
    """What `to_plain` was given."""
    return _READERS[plain["type"]](plain) if isinstance(plain, dict) else plain


def _read_array(plain: Mapping[str, Any]) -> NDArray[Any]:
    return np.array(plain["items"], plain["dtype"]).reshape(plain["shape"])


def _read_items(plain: Mapping[str, Any]) -> list[Any]:
    return [from_plain(item) for item in plain["items"]]


_READERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "array": _read_array,
    "scalar": lambda plain: _read_array(plain)[()],
    "list": _read_items,
    "tuple": lambda plain: tuple(_read_items(plain)),
    "deque": lambda plain: deque(_read_items(plain), plain["maxlen"]),
    "dict": lambda plain: {key: from_plain(item) for key, item in plain["items"].items()},
}


def generator_state(env: Any) -> dict[str, Any] | None:
    """An environment's generator; None where it was neither seeded nor asked for yet."""
    rng = env._np_random
    if rng is None:
        return None
    bits = rng.bit_generator.state
    if bits["bit_generator"] != "PCG64":
        raise UsageError(
            f"environment state: np_random: expected PCG64, got {bits['bit_generator']}"
        )
    return {"bits": bits, "seed": env._np_random_seed}


def load_generator(env: Any, saved: Mapping[str, Any] | None) -> None:
    """Give an environment the generator that `generator_state` was taken from."""
    if saved is None:
        env._np_random = env._np_random_seed = None
        return
    # A new one: somebody else may hold the old one.
    env._np_random = np.random.Generator(np.random.PCG64(0))
    env._np_random.bit_generator.state = saved["bits"]
    env._np_random_seed = saved["seed"]
