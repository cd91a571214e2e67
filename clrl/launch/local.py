"""Carries out jobs on this machine: one process a core, one thread a process.

Workers are processes that live as long as there is work, so that each loads torch and
the data once. A worker that dies takes only its job with it; another one takes its place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from types import FrameType, TracebackType
from typing import Any, cast

from clrl import record
from clrl.config import config_hash, to_dict
from clrl.errors import UsageError
from clrl.launch.jobs import Job
from clrl.launch.progress import Progress, seeds_text
from clrl.record import State

COMMAND = (sys.executable, "-P", "-m", "clrl.launch.worker")
"""What is started as a worker; the number of its connection is appended."""

_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_GLANCE = 0.2  # seconds between two looks at whether the user asked for an end
_PATIENCE = 1.0  # seconds between asking a worker to end and ending it


class Interrupted(Exception):
    """The user, or the machine, asked for an end: SIGINT, SIGTERM or SIGHUP."""


@dataclass
class Failure:
    """A job that did not end well.

    Attributes:
        label: the job's label.
        seeds: its seeds.
        message: one line for the terminal.
        mistake: whether it was the user's mistake.
    """

    label: str
    seeds: list[int]
    message: str
    mistake: bool


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: connection.Connection
    job: Job | None = None


@dataclass
class Pool:
    """Worker processes on this machine.

    A context manager: leaving it ends every worker. Inside it SIGINT, SIGTERM and SIGHUP
    are noted, and `check` and `run` raise `Interrupted` at the next safe point.

    Args:
        workers: how many jobs run side by side.
        command: what to start as a worker.
    """

    workers: int
    command: Sequence[str] = COMMAND
    _crew: list[_Worker] = field(default_factory=list)
    _handlers: dict[int, Any] = field(default_factory=dict)
    _asked_to_end: bool = False

    def __enter__(self) -> Pool:
        """Take over the signals."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all workers and give the signals back."""
        self._end(self._crew)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_end = True

    def _wait(self, pipes: list[connection.Connection]) -> list[connection.Connection]:
        """The pipes on which there is something to read, after a short while at most."""
        ready = connection.wait(pipes, timeout=_GLANCE)
        if self._asked_to_end:
            raise Interrupted
        return cast(list[connection.Connection], ready)

    def check(self, jobs: Sequence[Job]) -> list[str]:
        """See whether training can start, writing nothing: data, plug-ins, sizes that fit.

        Returns:
            What the user should know beforehand, a line each.

        Raises:
            UsageError: a job cannot start.
            Interrupted: the user asked for an end.
        """
        for _ in range(self.workers - len(self._crew)):
            self._start()
        remarks = []
        for job in jobs:
            worker = self._crew[0] if self._crew else self._start()
            try:
                worker.pipe.send(("check", to_dict(job.config)))
                while not self._wait([worker.pipe]):
                    pass
                kind, answer = worker.pipe.recv()
            except (EOFError, ConnectionError):
                kind, answer = "error", self._death(worker)
            if kind != "done":
                raise UsageError(f"{job.label}: {_last_line(answer)}")
            remarks += [f"{job.label}: {remark}" for remark in answer]
        return remarks

    def run(self, jobs: Sequence[Job], progress: Progress) -> list[Failure]:
        """Carry out jobs and keep the status of their runs up to date.

        Args:
            jobs: what to do, in this order.
            progress: is told how it goes.

        Returns:
            What went wrong.

        Raises:
            Interrupted: the user asked for an end; running jobs are stopped, and their
                runs marked.
        """
        waiting = list(reversed(jobs))
        failures: list[Failure] = []
        try:
            while True:
                self._hand_out(waiting, progress)
                busy = {worker.pipe: worker for worker in self._crew if worker.job}
                if not busy:
                    return failures
                for pipe in self._wait(list(busy)):
                    failures += self._listen(busy[pipe], progress)
                progress.tick()
        except BaseException:
            self._abandon(progress)
            raise

    def _hand_out(self, waiting: list[Job], progress: Progress) -> None:
        idle = [worker for worker in self._crew if worker.job is None]
        while waiting and (idle or len(self._crew) < self.workers):
            worker = idle.pop() if idle else self._start()
            job = waiting.pop()
            plain, digest = to_dict(job.config), config_hash(job.config)
            worker.job = job
            for seed, folder in job.folders.items():
                record.start_run(folder, seed, plain, digest)
            progress.start(job)
            # One that has just died is noticed when it is listened to.
            with contextlib.suppress(ConnectionError):
                worker.pipe.send(("train", plain, job.folders))

    def _listen(self, worker: _Worker, progress: Progress) -> list[Failure]:
        """Take one message of a worker that has a job."""
        job = worker.job
        assert job is not None
        try:
            kind, answer = worker.pipe.recv()
        except (EOFError, ConnectionError):
            kind, answer = "death", self._death(worker)
        if kind == "progress":
            progress.update(job, answer)
            return []
        if kind == "done":
            for seed, state in answer.items():
                record.end_run(job.folders[seed], cast(State, state))
            worker.job = None
            diverged = [seed for seed, state in answer.items() if state == "diverged"]
            progress.end(job, f"{seeds_text(diverged)} diverged" if diverged else "done")
            return []
        for folder in job.folders.values():
            record.end_run(folder, "failed", answer)
        worker.job = None
        progress.end(job, "failed")
        return [
            Failure(job.label, list(job.folders), _last_line(answer), mistake=kind == "mistake")
        ]

    def _death(self, worker: _Worker) -> str:
        """Forget a dead worker and say what it died of."""
        self._crew.remove(worker)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(_PATIENCE)
        self._end([worker])
        code = worker.process.returncode
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return f"the worker process died ({name})"

    def _abandon(self, progress: Progress) -> None:
        """Stop running jobs and mark their runs."""
        busy = [worker for worker in self._crew if worker.job]
        self._crew = [worker for worker in self._crew if not worker.job]
        self._end(busy)
        for worker in busy:
            assert worker.job is not None
            for folder in worker.job.folders.values():
                record.end_run(folder, "interrupted")
            progress.end(worker.job, "interrupted")

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs, _sigint_held():  # the child inherits that SIGINT is held
            process = subprocess.Popen(
                [*self.command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | _ONE_THREAD,
                stdin=subprocess.DEVNULL,
            )
        worker = _Worker(process, connection.Connection(ours.detach()))
        self._crew.append(worker)
        return worker

    @staticmethod
    def _end(workers: list[_Worker]) -> None:
        for worker in workers:
            worker.process.terminate()
        deadline = time.monotonic() + _PATIENCE
        for worker in workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.pipe.close()


@contextlib.contextmanager
def _sigint_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _last_line(text: str) -> str:
    return " ".join(text.strip().splitlines()[-1].split())


def default_workers() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))
