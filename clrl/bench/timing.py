"""Where the time of a measured stretch goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def add_time(
    owner: Any, name: str, part: str, shares: dict[str, float], clock: Callable[[], float]
) -> None:
    """Have an object add the seconds of one of its methods to a share, from now on."""
    method = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = clock()
        result = method(*args, **kwargs)
        shares[part] += clock() - start
        return result

    setattr(owner, name, timed)
