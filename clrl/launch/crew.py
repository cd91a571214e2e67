"""What a launcher brings: workers, each of which trains one population after another.

A worker takes requests and gives messages, as `clrl.launch.worker` describes them; where it
is, and by what way both travel, is the crew's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar


class Gone(Exception):
    """A worker is not there any more: how it went, such as ``SIGKILL``."""


class Worker(Protocol):
    """One worker."""

    def send(self, request: tuple[Any, ...]) -> None:
        """Hand over a request; that a worker is gone shows when it is listened to."""

    def receive(self) -> list[tuple[str, Any]]:
        """The messages that are there, the answer to a request as the last one.

        Raises:
            Gone: the worker is.
        """

    def interrupt(self) -> None:
        """Ask the population in training for a last checkpoint; asking twice changes nothing."""


W = TypeVar("W", bound=Worker)


class Crew(Protocol[W]):
    """Workers of one kind.

    Attributes:
        size: how many can work side by side.
        elastic: whether there are as many as there are populations, so that none need be cut.
    """

    size: int
    elastic: bool

    def start(self) -> W:
        """A new worker."""

    def wait(self, workers: Sequence[W], seconds: float) -> list[W]:
        """Those workers that have something to say, after so many seconds at most."""

    def end(self, workers: Sequence[W] | None = None) -> None:
        """End workers, all of them unless given, whatever they are doing."""

    def batch(self) -> AbstractContextManager[None]:
        """Inside, requests are gathered, and leave together."""

    def hold(self, lock: int) -> None:
        """Have workers, those to come included, keep the lock of the suite's folder taken."""
