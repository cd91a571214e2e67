"""A worker process: forks a process of its own for each population that it is given.

Started by `clrl.launch.local` as ``python -m clrl.launch.worker FD``. It loads torch once and
does nothing else itself, so that whatever happens in the process of one population, memory
that is used up included, happens to no other. It never prints, and writes nothing but what
an attempt writes. When the launcher is gone, all end. Where processes do not fork it trains
populations itself, one after another, while a thread listens.

It receives a file descriptor to hold open (the lock of the suite's folder), as ``("hold",)`` and
the descriptor; ``("check", config, device)``; ``("measure", config, seeds, device)``; and
``("train", config, terms)``, a configuration being plain data and the terms a `Terms`; and, where
it trains itself, ``("stop",)``, which asks for a last checkpoint as a signal does elsewhere.

The process that serves a request sends ``("pid", its number)``, None for the worker itself; while
it trains ``("progress", (done, online))`` and ``("remark", line)``; and at the end ``("done",
result)``, the result being a list of remarks, steps a second, or ``{seed: state}``;
``("preempted", None)``; ``("mistake", line)`` for a user's mistake; ``("storage", line)`` where
something cannot be written; or ``("error", traceback)``. If a forked process dies, the worker sends
``("death", how)``.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any, Protocol

from clrl import machine
from clrl.agents.options import SB3Options
from clrl.errors import StorageError, UsageError
from clrl.launch.process import set_up
from clrl.settings.config import RunConfig, resolve
from clrl.settings.values import Place
from clrl.storage.checkpoint import Keeping
from clrl.training.attempt import Attempt, Preempted
from clrl.training.online import Latest

_MEASURED = 3.0  # seconds of training from which a rate is taken


@dataclass(frozen=True)
class Terms:
    """On what terms a population is trained.

    Attributes:
        folders: each seed's folder.
        keeping: when checkpoints are written.
        resumes: whether to go on from a checkpoint, where there is one.
        device: what learners compute on.
        log: where measurements go besides; see `clrl.storage.logs`.
    """

    folders: dict[int, Path]
    keeping: Keeping
    resumes: bool
    device: str = "cpu"
    log: tuple[str, ...] = ()


class Trainer(Protocol):
    """What a worker trains with."""

    def prepare(self, config: RunConfig) -> None:
        """Load what all populations on a benchmark share; called before the fork."""

    def check(self, config: RunConfig, device: str) -> list[str]:
        """Raise what training would raise at its start; return what the user should know."""

    def measure(self, config: RunConfig, seeds: list[int], device: str) -> float:
        """Steps a second of a population, over all members, from a short training."""

    def train(
        self,
        config: RunConfig,
        terms: Terms,
        progress: Callable[[int, Latest | None], None],
        remark: Callable[[str], None],
    ) -> dict[int, str]:
        """Train a population and return each seed's final state."""


def main(connection: Connection, trainer: Trainer) -> None:
    """Carry out requests until the connection closes.

    Args:
        connection: to the launcher.
        trainer: what to train with.
    """
    (_by_forking if machine.FORKS else _by_itself)(connection, trainer)


def _by_forking(connection: Connection, trainer: Trainer) -> None:
    # An end is asked for by signals to the process that trains; here they are held.
    machine.hold_signals()
    machine.die_with_parent()
    while True:
        try:
            kind, *rest = connection.recv()
        except (EOFError, ConnectionError):
            return
        if kind == "hold":
            recv_handle(connection)
            continue
        _prepare(trainer, rest[0])
        process = os.fork()
        if not process:
            machine.die_with_parent()
            code = 1
            try:
                _serve(connection, trainer, kind, *rest)
                code = 0
            except ConnectionError:  # the launcher is gone, and nobody waits for an answer
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(process, 0)
        if status:
            try:
                connection.send(("death", cause(os.waitstatus_to_exitcode(status))))
            except ConnectionError:
                return


def _by_itself(connection: Connection, trainer: Trainer) -> None:
    for number in machine.STOPPING:  # until training heeds them, for itself
        signal.signal(number, signal.SIG_IGN)
    requests: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, requests), daemon=True).start()
    while True:
        kind, *rest = requests.get()
        _prepare(trainer, rest[0])
        try:
            _serve(connection, trainer, kind, *rest)
        except ConnectionError:
            return


def _listen(connection: Connection, requests: queue.SimpleQueue[tuple[str, Any]]) -> None:
    """Take requests, and end this process with the connection, whatever it is doing."""
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        if request[0] == "hold":
            recv_handle(connection)
        elif request[0] == "stop":
            _thread.interrupt_main(signal.SIGTERM)  # nothing where that is not heeded
        else:
            requests.put(request)


def _prepare(trainer: Trainer, plain: Any) -> None:
    # What is wrong comes up again, and is said, where it is checked or trained.
    with contextlib.suppress(Exception):
        trainer.prepare(resolve(plain, Place("configuration")))


def cause(code: int) -> str:
    """What a process died of, from its exit code as `subprocess` gives it."""
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _serve(connection: Connection, trainer: Trainer, kind: str, plain: Any, *more: Any) -> None:
    connection.send(("pid", os.getpid() if machine.FORKS else None))
    try:
        config = resolve(plain, Place("configuration"))
        answer: tuple[str, Any]
        if kind == "check":
            answer = ("done", trainer.check(config, *more))
        elif kind == "measure":
            answer = ("done", trainer.measure(config, *more))
        else:
            (terms,) = more
            states = trainer.train(
                config,
                terms,
                lambda done, online: connection.send(("progress", (done, online))),
                lambda line: connection.send(("remark", line)),
            )
            answer = ("done", states)
    except ConnectionError:
        raise
    except Preempted:
        answer = ("preempted", None)
    except UsageError as error:
        answer = ("mistake", str(error))
    except StorageError as error:
        answer = ("storage", str(error))
    except Exception:
        answer = ("error", traceback.format_exc())
    connection.send(answer)


class _Torch:
    """Trains with `clrl.training.dispatch`, on one thread."""

    def __init__(self) -> None:
        set_up()
        from clrl.training import dispatch  # loads torch

        self._train = dispatch

    def prepare(self, config: RunConfig) -> None:
        self._train.prepare(config)

    def check(self, config: RunConfig, device: str) -> list[str]:
        made = self._train.training(config, [0], device)
        remarks = []
        if isinstance(config.agent.options, SB3Options):
            remarks.append(f"{config.agent.name} trains its seeds one after another")
        elif made.agent.population.apart:  # type: ignore[union-attr]
            remarks.append(
                f"{config.optimizer.name} mixes learners that are stacked, so each seed is "
                "trained by itself, which is slower"
            )
        try:
            made.check_state()
        except UsageError as error:
            remarks.append(f"no checkpoints, so that it starts anew when interrupted: {error}")
        return remarks

    def measure(self, config: RunConfig, seeds: list[int], device: str) -> float:
        return self._train.measure(config, seeds, _MEASURED, device)

    def train(
        self,
        config: RunConfig,
        terms: Terms,
        progress: Callable[[int, Latest | None], None],
        remark: Callable[[str], None],
    ) -> dict[int, str]:
        return Attempt(
            config,
            terms.folders,
            terms.keeping,
            progress,
            remark,
            terms.resumes,
            terms.device,
            terms.log,
        ).run()


if __name__ == "__main__":
    machine.die_with_parent()  # which holds the folder's lock, while torch is loaded as well
    try:
        launcher = Connection(machine.connected(sys.argv[1]))
    except ConnectionError:  # it is gone already
        sys.exit()
    main(launcher, _Torch())
