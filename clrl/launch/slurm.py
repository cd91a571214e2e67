"""Workers in a Slurm queue, by way of submitit: a job for every population.

A job runs a worker process of its own as `clrl.launch.local` does, and writes its messages
to a file in the suite's folder, which has to be on a file system that all see. A job that Slurm
preempts writes a checkpoint, is put into the queue again and goes on from there.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clrl.errors import UsageError
from clrl.launch.crew import Gone
from clrl.launch.local import LocalCrew, LocalWorker
from clrl.launch.options import SlurmOptions
from clrl.storage import files

FOLDER = ".jobs"
"""Where, in the suite's folder, jobs keep their scripts, logs and messages."""

_CHECKPOINT = 60.0  # seconds that a preempted population gets for its checkpoint
_LOOK = 1.0  # seconds between two looks at files and at the queue


class Training:
    """What a job does: serves one request and writes the messages down.

    Args:
        request: as `clrl.launch.worker` takes it.
        messages: the file for messages; a file of this name with ``.stop`` behind it asks for
            a last checkpoint.
    """

    def __init__(self, request: tuple[Any, ...], messages: Path) -> None:
        self.request = request
        self.messages = messages
        self._worker: LocalWorker | None = None

    def __call__(self) -> str:
        """Train to the end; the last message's kind."""
        crew = LocalCrew(1)
        self._worker = crew.start()
        self._worker.send(self.request)
        stop = self.messages.with_suffix(".stop")
        kind = ""
        while kind in ("", "progress", "remark"):
            if stop.exists():
                self._worker.interrupt()
            for worker in crew.wait([self._worker], _LOOK):
                for kind, answer in _heard(worker):
                    self._say(kind, answer)
        crew.end()
        return kind

    def checkpoint(self) -> Any:
        """Called by submitit before the job is ended: what to put into the queue again."""
        if self._worker is not None:
            self._worker.interrupt()
            self._worker.wait_for_trainer(_CHECKPOINT)
        self._say("remark", "preempted; queued again")
        kind, plain, terms = self.request
        return _submitit().helpers.DelayedSubmission(
            Training((kind, plain, replace(terms, resumes=True)), self.messages)
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the process, which is the job's own."""
        return {"request": self.request, "messages": self.messages, "_worker": None}

    def _say(self, kind: str, answer: Any) -> None:
        if kind == "done":
            answer = list(answer.items())  # JSON has no whole numbers as keys
        with open(self.messages, "a", encoding="utf-8") as file:
            file.write(json.dumps([kind, answer]) + "\n")


def _heard(worker: LocalWorker) -> list[tuple[str, Any]]:
    try:
        return worker.receive()
    except Gone as gone:
        return [("death", str(gone))]


class SlurmWorker:
    """A job, once there is a request for it; see `clrl.launch.crew.Worker`.

    Args:
        crew: what submits it.
    """

    def __init__(self, crew: SlurmCrew) -> None:
        self._crew = crew
        self._checker: LocalWorker | None = None
        self._job: Any = None
        self._messages = Path()
        self._read = 0

    def send(self, request: tuple[Any, ...]) -> None:
        """Submit a job; whatever is not a training is done on this machine."""
        if request[0] != "train":
            self._checker = self._crew.checker()
            self._checker.send(request)
            return
        self._checker, self._read = None, 0
        self._job, self._messages = self._crew.submit(request)

    def has_something(self) -> bool:
        """Whether there are messages, or the job is gone without a last one."""
        if self._checker is not None:
            return bool(self._crew.checks.wait([self._checker], 0.0))
        return self._size() > self._read or bool(self._job.done())

    def receive(self) -> list[tuple[str, Any]]:
        """See `clrl.launch.crew.Worker.receive`."""
        if self._checker is not None:
            return self._checker.receive()
        over = self._job.done()  # before reading: what a job says last is there when it is done
        messages = []
        with contextlib.suppress(FileNotFoundError), open(self._messages, "rb") as file:
            file.seek(self._read)
            for line in file:
                if line.endswith(b"\n"):
                    self._read += len(line)
                    kind, answer = json.loads(line)
                    messages.append((kind, dict(answer) if kind == "done" else answer))
        if messages and messages[-1][0] not in ("progress", "remark"):
            self._job = None  # it is about to end by itself
        elif over:
            raise Gone(f"job {self._job.job_id}: {self._job.state.lower()}")
        return messages

    def interrupt(self) -> None:
        """See `clrl.launch.crew.Worker.interrupt`."""
        if self._job is not None:
            self._messages.with_suffix(".stop").touch()

    def end(self) -> None:
        """Take the job out of the queue."""
        if self._job is not None and not self._job.done():
            self._job.cancel(check=False)

    def _size(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return os.stat(self._messages).st_size
        return 0


class SlurmCrew:
    """Jobs in a Slurm queue; see `clrl.launch.crew.Crew`.

    Args:
        size: how many jobs run at a time; as many as there are unless given.
        out: the suite's folder.
        asked: what a job asks for.
        make_executor: makes what submits jobs, given the folder for their scripts and logs;
            submitit's for Slurm unless given.

    Raises:
        UsageError: submitit is not installed, or there is no Slurm here.
    """

    elastic = True

    def __init__(
        self,
        size: int | None,
        out: Path,
        asked: SlurmOptions,
        make_executor: Callable[[Path], Any] | None = None,
    ) -> None:
        if make_executor is None:
            _require_slurm()
        self._make_executor = make_executor or (lambda at: slurm_executor(at, asked, size))
        self._made: Any = None
        self._out = out.absolute()
        self.size = 1_000_000  # all are submitted at once, and Slurm sees to the rest
        self.checks = LocalCrew(1)
        self._checkers: list[LocalWorker] = []
        self._started: list[SlurmWorker] = []
        self._numbers = itertools.count()
        self._name = uuid.uuid4().hex[:8]

    def start(self) -> SlurmWorker:
        """See `clrl.launch.crew.Crew.start`."""
        worker = SlurmWorker(self)
        self._started.append(worker)
        return worker

    def wait(self, workers: Sequence[SlurmWorker], seconds: float) -> list[SlurmWorker]:
        """See `clrl.launch.crew.Crew.wait`."""
        deadline = time.monotonic() + seconds
        while True:
            ready = [worker for worker in workers if worker.has_something()]
            if ready or time.monotonic() > deadline:
                return ready
            time.sleep(min(_LOOK, seconds))

    def end(self, workers: Sequence[SlurmWorker] | None = None) -> None:
        """See `clrl.launch.crew.Crew.end`."""
        for worker in list(self._started if workers is None else workers):
            worker.end()
            self._started.remove(worker)
        if workers is None:
            self.checks.end()

    def hold(self, lock: int) -> None:
        """Nothing: the launcher that waits for its jobs holds the lock, and ends them."""

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Jobs submitted inside form an array."""
        if self._made is None:
            files.make_folder(self._out / FOLDER)
            self._made = self._make_executor(self._out / FOLDER)
        with self._made.batch():
            yield

    def checker(self) -> LocalWorker:
        """The worker on this machine that checks configurations."""
        if not self._checkers:
            self._checkers.append(self.checks.start())
        return self._checkers[0]

    def submit(self, request: tuple[Any, ...]) -> tuple[Any, Path]:
        """Submit a job; the job, and the file for its messages."""
        kind, plain, terms = request
        folders = {seed: folder.absolute() for seed, folder in terms.folders.items()}
        messages = self._out / FOLDER / f"{self._name}-{next(self._numbers)}.jsonl"
        request = (kind, plain, replace(terms, folders=folders))
        return self._made.submit(Training(request, messages)), messages


def slurm_executor(folder: Path, asked: SlurmOptions, at_a_time: int | None) -> Any:
    """Submitit's executor for Slurm, with what a job asks for."""
    executor = _submitit().SlurmExecutor(folder=folder, max_num_timeout=1_000)
    named = {"partition": asked.partition, "account": asked.account}
    executor.update_parameters(
        job_name="clrl",
        time=max(1, round(asked.time * 60)),
        mem=f"{max(1, round(asked.memory * 1024))}MB",
        cpus_per_task=1,
        ntasks_per_node=1,
        nodes=1,
        array_parallelism=at_a_time or 256,
        **{name: value for name, value in named.items() if value is not None},
    )
    return executor


def _require_slurm() -> None:
    """See whether jobs can be submitted.

    Raises:
        UsageError: submitit is not installed, or there is no Slurm here.
    """
    if _submitit().SlurmExecutor.affinity() < 0:
        raise UsageError("--launcher slurm: there is no Slurm on this machine (no srun)")


def _submitit() -> Any:
    """Submitit.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("submitit")
    except ModuleNotFoundError as error:
        message = "--launcher slurm: submitit is missing: pip install 'clrl[slurm]'"
        raise UsageError(message) from error
