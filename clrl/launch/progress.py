"""Tells the user how far the jobs are: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from clrl.launch.jobs import Job

if TYPE_CHECKING:
    from rich.console import Console

INTERVAL = 10.0
"""Seconds between two plain lines."""


class Progress(Protocol):
    """What a launcher calls while it carries out jobs."""

    def start(self, job: Job) -> None:
        """A job starts."""

    def update(self, job: Job, done: int) -> None:
        """A job's members have seen ``done`` examples together."""

    def say(self, job: Job, text: str) -> None:
        """There is something to know about a job that goes on."""

    def end(self, job: Job, how: str) -> None:
        """A job is over."""

    def tick(self) -> None:
        """Called about once a second."""


@contextlib.contextmanager
def shown(jobs: Sequence[Job], console: Console) -> Iterator[Progress]:
    """Show progress for as long as the context lasts.

    Args:
        jobs: everything that is going to be done.
        console: where; its ``is_terminal`` decides between bars and plain lines.
    """
    total = sum(job.size for job in jobs)
    if console.is_terminal:
        bars = Bars(total, console)
        with bars.display:
            yield bars
    else:
        yield Lines(total, console)


class Bars:
    """A bar for everything and one for each running job.

    Args:
        total: examples that all jobs together will see.
        console: the terminal.
    """

    def __init__(self, total: int, console: Console) -> None:
        from rich import progress

        self.display = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self._clocks = {"": Clock(total)}
        self._tasks = {"": self.display.add_task("all", total=total, rate="", left="")}
        self._overall = Tally()

    def start(self, job: Job) -> None:
        """Show a bar for the job."""
        key = _key(job)
        self._clocks[key] = Clock(job.size)
        self._tasks[key] = self.display.add_task(
            _name(job), total=job.size, rate="starting", left=""
        )

    def update(self, job: Job, done: int) -> None:
        """Move the job's bar and that for everything."""
        self._overall.update(job, done)
        for key, amount in ((_key(job), done), ("", self._overall.done)):
            clock = self._clocks[key]
            self.display.update(
                self._tasks[key],
                completed=amount,
                rate=f"{clock.rate(amount):,.0f}/s",
                left=f"{duration(clock.left(amount))} left",
            )

    def say(self, job: Job, text: str) -> None:
        """Print a line above the bars."""
        self.display.console.print(f"{_name(job)}: {text}", highlight=False, markup=False)

    def end(self, job: Job, how: str) -> None:
        """Replace the job's bar by a line."""
        self._overall.end(job)
        self.display.update(self._tasks[""], completed=self._overall.done)
        self.display.remove_task(self._tasks.pop(_key(job)))
        took = duration(self._clocks.pop(_key(job)).elapsed)
        self.display.console.print(f"{_name(job)}: {how} ({took})", highlight=False)

    def tick(self) -> None:
        """Nothing: the display refreshes itself."""


class Lines:
    """A line now and then.

    Args:
        total: examples that all jobs together will see.
        console: where to.
    """

    def __init__(self, total: int, console: Console) -> None:
        self._total = total
        self._console = console
        self._clock = Clock(total)
        self._overall = Tally()
        self._said = time.monotonic()

    def start(self, job: Job) -> None:
        """Say that the job starts."""
        self._say(f"{_name(job)}: started")

    def update(self, job: Job, done: int) -> None:
        """Note how far the job is."""
        self._overall.update(job, done)

    def say(self, job: Job, text: str) -> None:
        """Print a line."""
        self._say(f"{_name(job)}: {text}")

    def end(self, job: Job, how: str) -> None:
        """Say how the job ended."""
        self._overall.end(job)
        self._say(f"{_name(job)}: {how}")

    def tick(self) -> None:
        """Say how far everything is, if that was not said lately."""
        now = time.monotonic()
        if now - self._said < INTERVAL:
            return
        self._said = now
        for job, done in self._overall.running.values():
            self._say(f"{_name(job)}: {done:,}/{job.size:,} examples")
        done = self._overall.done
        self._say(
            f"all: {done:,}/{self._total:,} examples, {self._clock.rate(done):,.0f}/s, "
            f"{duration(self._clock.left(done))} left"
        )

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class Tally:
    """How many examples all jobs together have seen."""

    def __init__(self) -> None:
        self.running: dict[str, tuple[Job, int]] = {}
        self._ended = 0

    @property
    def done(self) -> int:
        """Examples of ended and running jobs; an ended job counts in full."""
        return self._ended + sum(done for _, done in self.running.values())

    def update(self, job: Job, done: int) -> None:
        """A job's members have seen ``done`` examples together."""
        self.running[_key(job)] = (job, done)

    def end(self, job: Job) -> None:
        """A job is over."""
        self.running.pop(_key(job), None)
        self._ended += job.size


class Clock:
    """Rate and time left, from the time since the clock was made.

    Args:
        total: how much there is to do.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.monotonic() - self._start

    def rate(self, done: int) -> float:
        """How much a second."""
        return done / max(self.elapsed, 1e-3)

    def left(self, done: int) -> float | None:
        """Seconds left at this rate; None before anything is done."""
        return (self._total - done) / self.rate(done) if done else None


def duration(seconds: float | None) -> str:
    """Seconds as ``h:mm:ss`` or ``m:ss``; ``-:--`` where not known."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _key(job: Job) -> str:
    return f"{job.label} {min(job.folders)}"


def _name(job: Job) -> str:
    return f"{job.label} {seeds_text(list(job.folders))}"


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds as people write them, such as ``seed 3``, ``seeds 0-4`` or ``seeds 0,2,5``."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]}-{seeds[-1]}"
    return "seeds " + ",".join(str(seed) for seed in seeds)
