"""One attempt at training a population in its folders: from its checkpoint, or from the start."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from clrl import machine
from clrl.errors import UsageError
from clrl.settings.config import RunConfig
from clrl.storage import checkpoint, record
from clrl.storage.checkpoint import Keeping
from clrl.storage.logs import LOGS, Told
from clrl.storage.record import METRICS, Position, Recorder, Unlike, read_metrics
from clrl.training.online import Latest, Online

SLOW = 1.0
"""Seconds between two safe points from which on the state is kept in memory as well."""

_SHARE = 0.01  # of the time, at most, that keeping the state in memory may take


class Preempted(BaseException):
    """An end was asked for; the checkpoint is written. No `Exception`, so that nothing stops it."""


class Attempt:
    """One attempt at training a population.

    The checkpoint lies in the folder of the first seed. It holds the state of the training loop,
    and how much of every member's metrics is older than it; what is newer is cut off when the
    population goes on from there.

    Args:
        config: what a run is.
        folders: each seed's folder, which exists.
        keeping: when to write checkpoints.
        progress: called now and then with the steps taken so far, over all members, and their
            online performance.
        remark: called with what the user should know, a line each.
        resumes: whether to go on from a checkpoint, where there is one.
        device: what learners compute on.
        log: where measurements go besides ``metrics.jsonl``; names of `clrl.storage.logs.LOGS`.

    Raises:
        UsageError: training cannot start.
    """

    def __init__(
        self,
        config: RunConfig,
        folders: Mapping[int, Path],
        keeping: Keeping,
        progress: Callable[[int, Latest | None], None],
        remark: Callable[[str], None],
        resumes: bool,
        device: str = "cpu",
        log: Sequence[str] = (),
    ) -> None:
        self._folders = dict(folders)
        self._log = [LOGS.find(name).load() for name in log]
        self._keeping = keeping
        self._progress = progress
        self._remark = remark
        from clrl.training.dispatch import training  # loads torch, which the launcher does without

        self._loop = training(config, list(folders), device)
        self._folder = next(iter(folders.values()))
        self._resumes = resumes
        self._recorders: dict[int, Recorder] = {}
        self._asked = False  # for an end
        self._exact: bool | None = None  # whether what is written can be read; None: not known yet
        self._noted = False  # how members are computed
        self._in_memory: bytes | None = None
        self._next_in_memory = 0.0  # when the state may be kept in memory again
        self._saved = (time.monotonic(), 0)
        self._last = time.monotonic()

    def run(self) -> dict[int, str]:
        """Train to the end.

        Returns:
            Seed to ``"finished"`` or ``"diverged"``.

        Raises:
            Preempted: one of the signals `clrl.machine.STOPPING` arrived. A checkpoint was written
                of the next safe point, or of a recent one where they are more than `SLOW` apart.
            StorageError: something cannot be written.
        """
        with self._heeding_signals(), contextlib.ExitStack() as stack:
            self._open()
            for recorder in self._recorders.values():
                stack.enter_context(recorder)
            self._saved, self._last = (time.monotonic(), self._loop.step), time.monotonic()
            self._online = Online(self._told(stack))
            states = self._loop.run(self._online.sinks, self._at_safe_point)
            self._keep()
            return states

    def _told(self, stack: contextlib.ExitStack) -> Mapping[int, Recorder | Told]:
        """The recorders, each with its logs, which are closed with the stack."""
        if not self._log:
            return self._recorders
        told: dict[int, Recorder | Told] = {}
        for seed, recorder in self._recorders.items():
            rows = read_metrics(self._folders[seed] / METRICS)
            logs = [make(self._folders[seed], rows) for make in self._log]
            for log in logs:
                stack.callback(log.close)
            told[seed] = Told(recorder, logs)
        return told

    def _open(self) -> None:
        """Open the recorders, and go on from the newest checkpoint that is sound.

        Raises:
            UsageError: a metrics file was changed since, so that it would have to be done anew.
        """
        unlike = ""
        paths = list(checkpoint.candidates(self._folder)) if self._resumes else []
        for path in paths:
            try:
                saved = checkpoint.read(path)
                self._recorders = self._opened(saved["records"])
            except checkpoint.Damaged as error:
                then = "it begins anew" if path == paths[-1] else "the previous one is used"
                self._remark(f"{error}; {then}")
                path.unlink()
                continue
            except Unlike as error:
                unlike = unlike or str(error)
                continue
            self._loop.load_state_dict(saved["loop"])
            self._loop.clock.elapsed_before = saved["elapsed"]
            return
        if unlike:
            raise UsageError(f"{unlike}; put it back, or remove {self._folder} to begin anew")
        self._recorders = self._opened({})

    def _opened(self, positions: Mapping[int, Position]) -> dict[int, Recorder]:
        return {
            seed: Recorder(folder, positions.get(seed)) for seed, folder in self._folders.items()
        }

    def _at_safe_point(self, done: int, total: int) -> None:
        self._progress(done, self._online.latest())
        if not self._noted:
            self._note()
        now, step = time.monotonic(), self._loop.step
        since, step_then = self._saved
        by_steps = self._keeping.steps and step - step_then >= self._keeping.steps
        slow = now - self._last > SLOW
        if not slow:
            self._in_memory = None
        kept = self._asked or by_steps or now - since >= self._keeping.minutes * 60
        if kept:
            self._keep()
        elif slow and now >= self._next_in_memory:
            self._in_memory = None
            self._in_memory = self._pack()
            done_at = time.monotonic()
            self._next_in_memory = done_at + (done_at - now) / _SHARE
        self._last = time.monotonic()
        if self._asked and (kept or self._in_memory):  # maybe in the meantime
            self._write(self._in_memory)
            raise Preempted

    def _note(self) -> None:
        """Say in every run's provenance how members are kept the same alone and among others."""
        self._noted = True
        how = self._loop.evenness()
        for folder in self._folders.values():
            record.add_provenance(folder, members=how)

    def _keep(self) -> None:
        """Write a checkpoint of this moment."""
        self._write(self._pack())

    def _pack(self) -> bytes | None:
        """This moment as a checkpoint; None where a part has no state that can be kept."""
        if self._exact is False:
            return None
        try:
            content = checkpoint.pack(
                {
                    "records": {seed: one.position() for seed, one in self._recorders.items()},
                    "elapsed": self._loop.clock.elapsed(),
                    "loop": self._loop.state_dict(),
                }
            )
            if self._exact is None:
                checkpoint.unpack(content, self._folder / checkpoint.NAME)
        except (UsageError, checkpoint.Damaged) as error:
            self._exact = False
            self._remark(f"no checkpoints, so that it starts anew when it is interrupted: {error}")
            return None
        self._exact = True
        return content

    def _write(self, content: bytes | None) -> None:
        self._in_memory = None  # first of all: a signal now finds nothing that is newer
        if content is not None:
            for recorder in self._recorders.values():
                recorder.sync()
            checkpoint.write(self._folder, content)
        self._saved = (time.monotonic(), self._loop.step)

    @contextlib.contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._heed) for number in machine.STOPPING}
        machine.let_signals_in()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        """Take the next safe point as the last one, or a recent one where they are far apart."""
        self._asked = True
        if self._in_memory is not None:
            self._write(self._in_memory)
            raise Preempted
