"""Workers on this machine: processes, each of which trains one population after another."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from multiprocessing import connection
from multiprocessing.reduction import send_handle
from typing import Any, cast

from clrl import machine
from clrl.launch.crew import Gone
from clrl.launch.worker import cause
from clrl.storage.provenance import THREADS

COMMAND = (sys.executable, "-P", "-m", "clrl.launch.worker")
"""What is started as a worker; the number of its connection is appended."""

_THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS)
)
_PATIENCE = 0.5  # seconds between asking a worker to end and ending it


class LocalWorker:
    """A worker process on this machine; see `clrl.launch.crew.Worker`.

    Args:
        command: what to start.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.process, way = machine.start(command, os.environ | _THREADS)
        self.pipe = connection.Connection(way.detach())
        self._works = False
        self._trainer: int | None = None  # what it has forked to do the work; else it works itself
        self._asked = False  # for an end

    def send(self, request: tuple[Any, ...]) -> None:
        """See `clrl.launch.crew.Worker.send`."""
        with contextlib.suppress(ConnectionError):
            self.pipe.send(request)

    def receive(self) -> list[tuple[str, Any]]:
        """See `clrl.launch.crew.Worker.receive`."""
        try:
            kind, answer = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.end()
            raise Gone(cause(self.process.returncode)) from None
        if kind == "pid":
            self._works, self._trainer, self._asked = True, answer, False
            return []
        if kind != "progress" and kind != "remark":
            self._works = False
        return [(kind, answer)]

    def interrupt(self) -> None:
        """See `clrl.launch.crew.Worker.interrupt`."""
        if self._works and not self._asked:
            self._asked = True
            if self._trainer is None:
                self.send(("stop",))
            else:
                machine.tell(self._trainer, signal.SIGTERM)

    def hold(self, lock: int) -> None:
        """Have the worker and its children inherit the lock."""
        with contextlib.suppress(ConnectionError):
            self.pipe.send(("hold",))
            send_handle(self.pipe, lock, self.process.pid)

    def wait_for_trainer(self, seconds: float) -> None:
        """Wait until the population's process has ended, so many seconds at most."""
        deadline = time.monotonic() + seconds
        while self._works and time.monotonic() < deadline:
            if self._trainer is not None and not machine.exists(self._trainer):
                return
            time.sleep(0.05)

    def leave(self) -> None:
        """Ask for an end: of a population at once, of the worker when it has nothing to do."""
        if self._works and self._trainer is None:
            self.process.kill()
        elif self._works and self._trainer is not None:
            machine.tell(self._trainer, signal.SIGKILL)
        self.pipe.close()

    def end(self, deadline: float | None = None) -> None:
        """End the process, by force where it has not ended itself by the deadline."""
        self.leave()
        until = time.monotonic() + _PATIENCE if deadline is None else deadline
        try:
            self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class LocalCrew:
    """Worker processes on this machine; see `clrl.launch.crew.Crew`.

    Args:
        size: how many can work side by side.
        command: what to start as a worker.
    """

    elastic = False

    def __init__(self, size: int, command: Sequence[str] = COMMAND) -> None:
        self.size = size
        self._command = command
        self._lock: int | None = None
        self._started: list[LocalWorker] = []

    def start(self) -> LocalWorker:
        """See `clrl.launch.crew.Crew.start`."""
        worker = LocalWorker(self._command)
        self._started.append(worker)
        if self._lock is not None:
            worker.hold(self._lock)
        return worker

    def wait(self, workers: Sequence[LocalWorker], seconds: float) -> list[LocalWorker]:
        """See `clrl.launch.crew.Crew.wait`."""
        by_pipe = {worker.pipe: worker for worker in workers}
        ready = connection.wait(list(by_pipe), timeout=seconds)
        return [by_pipe[cast(connection.Connection, pipe)] for pipe in ready]

    def end(self, workers: Sequence[LocalWorker] | None = None) -> None:
        """See `clrl.launch.crew.Crew.end`."""
        leaving = list(self._started if workers is None else workers)
        for worker in leaving:
            worker.leave()
        deadline = time.monotonic() + _PATIENCE
        for worker in leaving:
            worker.end(deadline)
            self._started.remove(worker)

    def batch(self) -> AbstractContextManager[None]:
        """See `clrl.launch.crew.Crew.batch`."""
        return contextlib.nullcontext()

    def hold(self, lock: int) -> None:
        """See `clrl.launch.crew.Crew.hold`."""
        self._lock = lock
        for worker in self._started:
            worker.hold(lock)
