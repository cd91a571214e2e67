"""Supervises populations: hands them to workers, keeps their status, starts them again.

As many populations as there are workers are trained side by side. One that is killed, by the
system or by anybody, goes on from its checkpoint; one that fails leaves the others alone.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, cast

from clrl.errors import StorageError, UsageError
from clrl.launch.crew import Crew, Gone, Worker
from clrl.launch.jobs import Job
from clrl.launch.progress import Progress, seeds_text
from clrl.launch.worker import Terms
from clrl.machine import STOPPING
from clrl.settings.config import config_hash, to_dict
from clrl.storage import checkpoint, record
from clrl.storage.checkpoint import Keeping
from clrl.storage.record import State
from clrl.training import fitting

RESTARTS = 2
"""How often a population goes on after a death or an error, at most."""

_GLANCE = 0.2  # seconds between two looks at whether the user asked for an end
_LAST_CHECKPOINT = 3.0  # seconds that running populations get for their last checkpoint


class Interrupted(Exception):
    """The user, or the machine, asked for an end by one of the signals `STOPPING`.

    Attributes:
        signal: which.
    """

    def __init__(self, number: int) -> None:
        super().__init__("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)
        self.signal = number

    @property
    def how(self) -> str:
        """What became of the runs, in a word."""
        return "interrupted" if self.signal == signal.SIGINT else "preempted"


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


@dataclass
class Supervisor:
    """Keeps populations in training, by workers of a crew.

    A context manager: leaving it ends every worker. Inside it the signals `STOPPING` are noted,
    and `check` and `run` raise `Interrupted` at the next safe point.

    Args:
        crew: the workers.
        keeping: when checkpoints are written.
        log: where measurements go besides; see `clrl.storage.logs`.
    """

    crew: Crew[Any]
    keeping: Keeping = Keeping()
    log: tuple[str, ...] = ()
    _idle: list[Worker] = field(default_factory=list)
    _busy: dict[Worker, _Attempts] = field(default_factory=dict)
    _handlers: dict[int, Any] = field(default_factory=dict)
    _asked_to_end: int = 0
    _failures: list[Failure] = field(default_factory=list)
    _prepare: Callable[[], None] = lambda: None

    def __enter__(self) -> Supervisor:
        """Take over the signals; outside of the main thread Python does not let them be had."""
        main = threading.current_thread() is threading.main_thread()
        for number in STOPPING if main else ():
            self._handlers[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all workers and give the signals back."""
        self.crew.end()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_end = number

    def _wait(self, workers: Sequence[Worker]) -> list[Worker]:
        """The workers that have something to say, after a short while at most."""
        ready = self.crew.wait(workers, _GLANCE)
        if self._asked_to_end:
            raise Interrupted(self._asked_to_end)
        return ready

    def check(self, jobs: Sequence[Job]) -> list[str]:
        """See whether training can start, writing nothing: data, plug-ins, sizes that fit.

        Returns:
            What the user should know beforehand, a line each.

        Raises:
            UsageError: a job cannot start.
            Interrupted: the user asked for an end.
        """
        for job in jobs:  # before workers are started, which takes seconds
            try:
                fitting.check(job.config)
            except UsageError as error:
                raise UsageError(f"{job.label}: {error}") from error
        for _ in range(min(self.crew.size, len(jobs)) - len(self._idle)):
            self._idle.append(self.crew.start())
        remarks = []
        for job in jobs:
            answer = self._ask(job, "check")
            remarks += [f"{job.label}: {remark}" for remark in answer]
        return remarks

    def measure(self, jobs: Sequence[Job]) -> list[float]:
        """Steps a second of each job, over all its seeds, from a few seconds of training.

        Raises:
            UsageError: a job cannot start.
            Interrupted: the user asked for an end.
        """
        return [self._ask(job, "measure", list(job.folders)) for job in jobs]

    def _ask(self, job: Job, kind: str, *more: Any) -> Any:
        """The answer of an idle worker to a request about a job; one that dies is asked again."""
        ended, answer = "", ""
        for _ in range(1 + RESTARTS):
            if not self._idle:
                self._idle.append(self.crew.start())
            worker = self._idle[0]
            worker.send((kind, to_dict(job.config), *more, job.device))
            try:
                ended, answer = self._message(worker)
            except Gone as gone:
                self._idle.remove(worker)
                ended, answer = "death", str(gone)
            if ended != "death":
                break
            answer = _killed(answer)
        if ended != "done":
            raise UsageError(f"{job.label}: {_last_line(answer)}")
        return answer

    def _message(self, worker: Worker) -> tuple[str, Any]:
        """The answer to a request."""
        while True:
            for kind, answer in worker.receive() if self._wait([worker]) else []:
                if kind not in ("progress", "remark"):
                    return kind, answer

    def run(
        self, jobs: Sequence[Job], progress: Progress, prepare: Callable[[], None] = lambda: None
    ) -> list[Failure]:
        """Carry out jobs and keep the status of their runs up to date.

        Args:
            jobs: what to do, in this order.
            progress: is told how it goes.
            prepare: called before each job, to see that there is still a folder to write to.

        Returns:
            What went wrong.

        Raises:
            Interrupted: the user asked for an end; running jobs have written a checkpoint, if
                there was time for it, and their runs are marked.
        """
        waiting = [_Attempts(job, job.resumes) for job in reversed(jobs)]
        self._failures = []
        self._prepare = prepare
        try:
            while True:
                self._hand_out(waiting, progress)
                if not self._busy:
                    return self._failures
                for worker in self._wait(list(self._busy)):
                    again = self._listen(worker, progress)
                    waiting += [again] if again else []
                progress.tick()
        except BaseException:
            self._preempt(progress)
            raise

    def _hand_out(self, waiting: list[_Attempts], progress: Progress) -> None:
        if waiting and self._has_room():
            with self.crew.batch():
                while waiting and self._has_room():
                    self._hand_over(waiting.pop(), progress)
        if not waiting:  # and what others wait for is free
            self.crew.end(self._idle)
            self._idle = []

    def _has_room(self) -> bool:
        return bool(self._idle) or len(self._busy) < self.crew.size

    def _hand_over(self, attempts: _Attempts, progress: Progress) -> None:
        if not self._begin(attempts, progress):
            return
        worker = self._idle.pop() if self._idle else self.crew.start()
        self._busy[worker] = attempts
        job = attempts.job
        terms = Terms(job.folders, self.keeping, attempts.resumes, job.device, self.log)
        worker.send(("train", to_dict(job.config), terms))

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
            self._prepare()
            if not attempts.resumes:  # before a status vouches for what is there
                for folder in job.folders.values():
                    checkpoint.remove(folder)
            for seed, folder in job.folders.items():
                record.start_run(folder, seed, plain, digest, job.device, **more)
        except StorageError as error:
            self._fail(job, str(error), mistake=False)
            return False
        if not attempts.restarts:
            progress.start(job)
        return True

    def _listen(self, worker: Worker, progress: Progress) -> _Attempts | None:
        """Take one message of a busy worker; what is to be done again, if anything."""
        attempts = self._busy[worker]
        try:
            messages = worker.receive()
        except Gone as gone:
            del self._busy[worker]
            return self._ended(attempts, "death", str(gone), progress)
        for kind, answer in messages:
            if kind == "progress":
                progress.update(attempts.job, *answer)
            elif kind == "remark":
                progress.say(attempts.job, answer)
            else:
                del self._busy[worker]
                self._idle.append(worker)
                return self._ended(attempts, kind, answer, progress)
        return None

    def _ended(
        self, attempts: _Attempts, kind: str, answer: Any, progress: Progress
    ) -> _Attempts | None:
        """Note how an attempt ended; the attempts where there is to be another."""
        job = attempts.job
        if kind == "done":
            self._note(job, answer)
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

    def _note(self, job: Job, states: Mapping[int, str]) -> None:
        """Mark a job's runs; that it cannot be done is a failure as well."""
        problem = self._mark(job, states)
        if problem:
            self._fail(job, problem, mistake=False)

    def _mark(self, job: Job, states: Mapping[int, str], error: str = "") -> str:
        """Write down the states of a job's runs; what went wrong with that, if anything."""
        try:
            for seed, state in states.items():
                record.end_run(job.folders[seed], cast(State, state), error)
        except (StorageError, UsageError) as problem:
            return str(problem)
        return ""

    def _fail(self, job: Job, message: str, mistake: bool) -> None:
        self._failures.append(Failure(job.label, list(job.folders), message, mistake))

    def _preempt(self, progress: Progress) -> None:
        """Have running jobs write a last checkpoint, and mark their runs."""
        deadline = time.monotonic() + _LAST_CHECKPOINT
        while self._busy and time.monotonic() < deadline:
            for worker in self._busy:
                worker.interrupt()
            for worker in self.crew.wait(list(self._busy), _GLANCE):
                self._listen_last(worker, progress)
        for attempts in self._busy.values():
            self._stopped(attempts.job, progress)

    def _listen_last(self, worker: Worker, progress: Progress) -> None:
        """Take a message of a worker whose job is not to be done again."""
        attempts = self._busy[worker]
        try:
            messages = worker.receive()
        except Gone:
            messages = [("death", None)]
        kind, answer = messages[-1] if messages else ("progress", None)
        if kind in ("progress", "remark"):
            return
        del self._busy[worker]
        if kind in ("preempted", "death"):
            self._stopped(attempts.job, progress)
        else:
            attempts.restarts = RESTARTS
            self._ended(attempts, kind, answer, progress)

    def _stopped(self, job: Job, progress: Progress) -> None:
        self._note(job, dict.fromkeys(job.folders, "preempted"))
        progress.end(job, Interrupted(self._asked_to_end or signal.SIGTERM).how)


def _killed(how: str) -> str:
    return f"the process died ({how})"


def _last_line(text: str) -> str:
    return " ".join(text.strip().splitlines()[-1].split())
