"""Carries out jobs on this machine: a process for each population, one thread a process.

As many populations as there are workers are trained side by side. One that is killed, by the
system or by anybody, goes on from its checkpoint; one that fails leaves the others alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.reduction import send_handle
from types import FrameType, TracebackType
from typing import Any, cast

from clrl import checkpoint, record
from clrl.attempt import STOPPING
from clrl.checkpoint import Keeping
from clrl.config import config_hash, to_dict
from clrl.errors import StorageError, UsageError
from clrl.launch.jobs import Job
from clrl.launch.progress import Progress, seeds_text
from clrl.launch.worker import Terms, cause
from clrl.provenance import THREADS
from clrl.record import State

COMMAND = (sys.executable, "-P", "-m", "clrl.launch.worker")
"""What is started as a worker; the number of its connection is appended."""

RESTARTS = 2
"""How often a population goes on after a death or an error, at most."""

_THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS)
)
_GLANCE = 0.2  # seconds between two looks at whether the user asked for an end
_PATIENCE = 0.5  # seconds between asking an idle worker to end and ending it
_LAST_CHECKPOINT = 3.0  # seconds that running populations get for their last checkpoint


class Interrupted(Exception):
    """The user, or the machine, asked for an end by one of the signals `STOPPING`.

    Attributes:
        signal: which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


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
class _Attempts:
    """A job, and how its attempts went."""

    job: Job
    resumes: bool
    restarts: int = 0
    error: str = ""


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: connection.Connection
    attempts: _Attempts | None = None
    trainer: int = 0  # the process that it has forked for its job


@dataclass
class Pool:
    """Worker processes on this machine.

    A context manager: leaving it ends every worker. Inside it the signals `STOPPING` are noted,
    and `check` and `run` raise `Interrupted` at the next safe point.

    Args:
        workers: how many jobs run side by side.
        keeping: when checkpoints are written.
        command: what to start as a worker.
    """

    workers: int
    keeping: Keeping = Keeping()
    command: Sequence[str] = COMMAND
    _crew: list[_Worker] = field(default_factory=list)
    _handlers: dict[int, Any] = field(default_factory=dict)
    _asked_to_end: int = 0
    _lock: int | None = None
    _failures: list[Failure] = field(default_factory=list)

    def __enter__(self) -> Pool:
        """Take over the signals."""
        for number in STOPPING:
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
        self._asked_to_end = number

    def _wait(self, pipes: list[connection.Connection]) -> list[connection.Connection]:
        """The pipes on which there is something to read, after a short while at most."""
        ready = connection.wait(pipes, timeout=_GLANCE)
        if self._asked_to_end:
            raise Interrupted(self._asked_to_end)
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
            kind, answer = "pid", cast(Any, None)
            try:
                worker.pipe.send(("check", to_dict(job.config)))
                while kind == "pid":
                    while not self._wait([worker.pipe]):
                        pass
                    kind, answer = worker.pipe.recv()
            except (EOFError, ConnectionError):
                kind, answer = "death", self._death(worker)
            if kind == "death":
                answer = _killed(answer)
            if kind != "done":
                raise UsageError(f"{job.label}: {_last_line(answer)}")
            remarks += [f"{job.label}: {remark}" for remark in answer]
        return remarks

    def run(
        self, jobs: Sequence[Job], progress: Progress, lock: int | None = None
    ) -> list[Failure]:
        """Carry out jobs and keep the status of their runs up to date.

        Args:
            jobs: what to do, in this order.
            progress: is told how it goes.
            lock: a file descriptor that workers are to hold open too.

        Returns:
            What went wrong.

        Raises:
            Interrupted: the user asked for an end; running jobs have written a checkpoint, if
                there was time for it, and their runs are marked.
        """
        self._lock = lock
        for worker in self._crew:
            self._hold_lock(worker)
        waiting = [_Attempts(job, job.resumes) for job in reversed(jobs)]
        self._failures = []
        try:
            while True:
                self._hand_out(waiting, progress)
                busy = {worker.pipe: worker for worker in self._crew if worker.attempts}
                if not busy:
                    return self._failures
                for pipe in self._wait(list(busy)):
                    again = self._listen(busy[pipe], progress)
                    waiting += [again] if again else []
                progress.tick()
        except BaseException:
            self._preempt(progress)
            raise

    def _hand_out(self, waiting: list[_Attempts], progress: Progress) -> None:
        idle = [worker for worker in self._crew if worker.attempts is None]
        while waiting and (idle or len(self._crew) < self.workers):
            attempts = waiting.pop()
            if not self._begin(attempts, progress):
                continue
            worker = idle.pop() if idle else self._start()
            worker.attempts, worker.trainer = attempts, 0
            terms = Terms(attempts.job.folders, self.keeping, attempts.resumes)
            # One that has just died is noticed when it is listened to.
            with contextlib.suppress(ConnectionError):
                worker.pipe.send(("train", to_dict(attempts.job.config), terms))

    def _begin(self, attempts: _Attempts, progress: Progress) -> bool:
        """Note that a job starts; whether that could be done."""
        job = attempts.job
        plain, digest = to_dict(job.config), config_hash(job.config)
        more = {
            "population": list(job.folders),
            "restarts": attempts.restarts,
            "forced": list(job.forced),
        }
        try:
            if not attempts.resumes:  # before a status vouches for what is there
                for folder in job.folders.values():
                    checkpoint.remove(folder)
            for seed, folder in job.folders.items():
                record.start_run(folder, seed, plain, digest, **more)
        except StorageError as error:
            self._fail(job, str(error), mistake=False)
            return False
        if not attempts.restarts:
            progress.start(job)
        return True

    def _listen(self, worker: _Worker, progress: Progress) -> _Attempts | None:
        """Take one message of a worker that has a job; what it has to do again, if anything."""
        attempts = worker.attempts
        assert attempts is not None
        job = attempts.job
        try:
            kind, answer = worker.pipe.recv()
        except (EOFError, ConnectionError):
            kind, answer = "death", self._death(worker)
        if kind == "pid":
            worker.trainer = answer
        elif kind == "progress":
            progress.update(job, answer)
        elif kind == "remark":
            progress.say(job, answer)
        else:
            worker.attempts = None
            return self._ended(attempts, kind, answer, progress)
        return None

    def _ended(
        self, attempts: _Attempts, kind: str, answer: Any, progress: Progress
    ) -> _Attempts | None:
        """Note how an attempt ended; the attempts where there is to be another."""
        job = attempts.job
        if kind == "done":
            self._mark(job, answer)
            diverged = [seed for seed, state in answer.items() if state == "diverged"]
            progress.end(job, f"{seeds_text(diverged)} diverged" if diverged else "done")
            return None
        text = _killed(answer) if kind == "death" else answer or "asked to end"
        line = _last_line(text)
        same = kind == "error" and line == attempts.error
        if kind in ("death", "error", "preempted") and not same and attempts.restarts < RESTARTS:
            progress.say(job, f"{line}; goes on from its checkpoint")
            attempts.restarts += 1
            attempts.resumes, attempts.error = True, line
            return attempts
        self._mark(job, dict.fromkeys(job.folders, "failed"), text)
        progress.end(job, "failed")
        self._fail(job, line, mistake=kind == "mistake")
        return None

    def _mark(self, job: Job, states: Mapping[int, str], error: str = "") -> None:
        """Note the states of a job's runs; that it cannot be noted is a failure as well."""
        try:
            for seed, state in states.items():
                record.end_run(job.folders[seed], cast(State, state), error)
        except (StorageError, UsageError) as problem:
            self._fail(job, str(problem), mistake=False)

    def _fail(self, job: Job, message: str, mistake: bool) -> None:
        self._failures.append(Failure(job.label, list(job.folders), message, mistake))

    def _death(self, worker: _Worker) -> str:
        """Forget a dead worker and say what it died of."""
        self._crew.remove(worker)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(_PATIENCE)
        self._end([worker])
        return cause(worker.process.returncode)

    def _preempt(self, progress: Progress) -> None:
        """Have running jobs write a last checkpoint, and mark their runs."""
        busy = {worker.pipe: worker for worker in self._crew if worker.attempts}
        deadline = time.monotonic() + _LAST_CHECKPOINT
        asked: set[int] = set()
        while busy and time.monotonic() < deadline:
            for worker in busy.values():
                if worker.trainer and worker.trainer not in asked:
                    asked.add(worker.trainer)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.trainer, signal.SIGTERM)
            for pipe in connection.wait(list(busy), timeout=_GLANCE):
                worker = busy[cast(connection.Connection, pipe)]
                self._listen_last(worker, progress)
                if worker.attempts is None:
                    del busy[worker.pipe]
        for worker in busy.values():
            self._crew.remove(worker)
            assert worker.attempts is not None
            self._stopped(worker.attempts.job, progress)
        self._end(list(busy.values()))

    def _listen_last(self, worker: _Worker, progress: Progress) -> None:
        """Take a message of a worker whose job is not to be done again."""
        attempts = worker.attempts
        assert attempts is not None
        attempts.restarts = RESTARTS
        try:
            kind, answer = worker.pipe.recv()
        except (EOFError, ConnectionError):
            kind, answer = "preempted", self._death(worker)
        if kind == "pid":
            worker.trainer = answer
        elif kind in ("preempted", "death"):
            worker.attempts = None
            self._stopped(attempts.job, progress)
        elif kind not in ("progress", "remark"):
            worker.attempts = None
            self._ended(attempts, kind, answer, progress)

    def _stopped(self, job: Job, progress: Progress) -> None:
        self._mark(job, dict.fromkeys(job.folders, "preempted"))
        progress.end(job, "preempted")

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs, _signals_held():  # the child inherits that they are held
            process = subprocess.Popen(
                [*self.command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | _THREADS,
                stdin=subprocess.DEVNULL,
            )
        worker = _Worker(process, connection.Connection(ours.detach()))
        self._crew.append(worker)
        self._hold_lock(worker)
        return worker

    def _hold_lock(self, worker: _Worker) -> None:
        if self._lock is not None:
            with contextlib.suppress(ConnectionError):  # noticed when it is listened to
                worker.pipe.send(("hold",))
                send_handle(worker.pipe, self._lock, worker.process.pid)

    @staticmethod
    def _end(workers: list[_Worker]) -> None:
        for worker in workers:
            if worker.trainer and worker.attempts:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.trainer, signal.SIGKILL)
            worker.pipe.close()  # at which a worker that has nothing to do ends
        deadline = time.monotonic() + _PATIENCE
        for worker in workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _killed(how: str) -> str:
    return f"the process died ({how})"


def _last_line(text: str) -> str:
    return " ".join(text.strip().splitlines()[-1].split())


def default_workers() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))
