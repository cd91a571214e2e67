"""A worker process: carries out jobs that arrive over a connection, one after another.

Started by `clrl.launch.local` as ``python -m clrl.launch.worker FD``. It never prints and
writes nothing but what the recorders of its runs write. When the other side is gone, it
ends.

It receives ``("check", config)`` and ``("train", config, {seed: folder})``, a
configuration being plain data. While it trains it sends ``("progress", done)``. At the end
it answers with ``("done", result)``, the result being a list of remarks or
``{seed: state}``; with ``("mistake", line)`` for a user's mistake; or with
``("error", traceback)``.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from clrl.config import RunConfig, resolve
from clrl.errors import UsageError
from clrl.launch.process import set_up
from clrl.record import Recorder
from clrl.values import Place


class Trainer(Protocol):
    """What a worker trains with."""

    def check(self, config: RunConfig) -> list[str]:
        """Raise what training would raise at its start; return what the user should know."""

    def train(
        self,
        config: RunConfig,
        seeds: Sequence[int],
        recorders: Mapping[int, Recorder],
        progress: Callable[[int, int], None],
    ) -> dict[int, str]:
        """Train a population and return each seed's final state."""


def main(connection: Connection, trainer: Trainer) -> None:
    """Carry out jobs until the connection closes.

    Args:
        connection: to the launcher.
        trainer: what to train with.
    """
    # Ctrl-C reaches every process of the terminal's group; the launcher decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            kind, plain, *rest = connection.recv()
            try:
                config = resolve(plain, Place("configuration"))
                if kind == "check":
                    answer: tuple[str, Any] = ("done", trainer.check(config))
                else:
                    answer = ("done", _train(connection, trainer, config, *rest))
            except ConnectionError:
                raise
            except UsageError as error:
                answer = ("mistake", str(error))
            except Exception:
                answer = ("error", traceback.format_exc())
            connection.send(answer)


def _train(
    connection: Connection, trainer: Trainer, config: RunConfig, folders: dict[int, Path]
) -> dict[int, str]:
    with contextlib.ExitStack() as stack:
        recorders = {
            seed: stack.enter_context(Recorder(folder)) for seed, folder in folders.items()
        }
        return trainer.train(
            config,
            list(folders),
            recorders,
            lambda done, total: connection.send(("progress", done)),
        )


class _Torch:
    """Trains with `clrl.train`, on one thread."""

    def __init__(self) -> None:
        set_up()

    def check(self, config: RunConfig) -> list[str]:
        from clrl.control import ControlTraining
        from clrl.train import Training, training

        made = training(config, [0])
        if not isinstance(made, Training | ControlTraining):
            return [f"{config.agent.name} trains its seeds one after another"]
        if made.agent.population.apart:
            return [
                f"{config.optimizer.name} mixes learners that are stacked, so each seed is "
                "trained by itself, which is slower"
            ]
        return []

    def train(
        self,
        config: RunConfig,
        seeds: Sequence[int],
        recorders: Mapping[int, Recorder],
        progress: Callable[[int, int], None],
    ) -> dict[int, str]:
        from clrl.train import train

        return train(config, seeds, recorders, progress)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), _Torch())
