"""Tells the user how far the jobs are: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from clrl.launch.jobs import Job
from clrl.training.online import Latest

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

INTERVAL = 10.0
"""Seconds between two plain lines."""

_WIDE = 100  # columns of a terminal that has room for long bars
_NAMED = 4  # learners whose performance a line tells
_AROUND = 5  # lines of the terminal that the table's rows cannot have


class Progress(Protocol):
    """What a launcher calls while it carries out jobs."""

    def start(self, job: Job) -> None:
        """A job starts."""

    def update(self, job: Job, done: int, online: Latest | None = None) -> None:
        """A job's members have seen ``done`` examples together, and perform like this."""

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
        console: where; its ``is_terminal`` decides between a table and plain lines.
    """
    if console.is_terminal:
        table = Table(jobs, console)
        with table.display:
            yield table
    else:
        yield Lines(jobs, console)


@dataclass
class Course:
    """How a job that was started has gone so far.

    Its speed is measured from the first news on: what came before was loading, or had been done
    in an earlier attempt.

    Attributes:
        job: the job.
        started: when, in seconds of the monotonic clock.
        first: time and examples of the first news; None before any.
        last: time and examples of the last.
        online: performance, as far as known.
        how: how it ended; empty before that.
    """

    job: Job
    started: float
    first: tuple[float, int] | None = None
    last: tuple[float, int] = (0.0, 0)
    online: Latest | None = None
    how: str = ""

    @property
    def done(self) -> int:
        """Examples that its members have seen; an ended job counts in full."""
        return self.job.size if self.how else self.last[1]

    @property
    def measured(self) -> tuple[float, int]:
        """Seconds, and examples in them; nothing where there is no measurement."""
        if self.first is None or self.last[1] <= self.first[1] or self.last[0] <= self.first[0]:
            return 0.0, 0
        return self.last[0] - self.first[0], self.last[1] - self.first[1]

    @property
    def rate(self) -> float | None:
        """Examples a second, as far as known."""
        seconds, examples = self.measured
        return examples / seconds if examples else None


class Work:
    """What is known of all jobs: how far they are, how fast, how long it will take.

    Args:
        jobs: everything that is going to be done.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = list(jobs)
        self.total = sum(job.size for job in jobs)
        self._courses: dict[str, Course] = {}

    def start(self, job: Job) -> None:
        """A job starts."""
        self._courses[_key(job)] = Course(job, time.monotonic())

    def update(self, job: Job, done: int, online: Latest | None) -> None:
        """A job's members have seen ``done`` examples together."""
        course = self._courses[_key(job)]
        course.last = (time.monotonic(), done)
        course.first = course.first or course.last
        course.online = online or course.online

    def end(self, job: Job, how: str) -> Course:
        """A job is over."""
        course = self._courses[_key(job)]
        course.how = how
        return course

    def course(self, job: Job) -> Course | None:
        """How a job has gone; None where it has not started."""
        return self._courses.get(_key(job))

    @property
    def running(self) -> list[Course]:
        """The jobs that are under way."""
        # Copies here and below: a terminal's table is drawn by a thread of its own.
        return [course for course in list(self._courses.values()) if not course.how]

    @property
    def done(self) -> int:
        """Examples of all jobs together."""
        return sum(course.done for course in list(self._courses.values()))

    @property
    def rate(self) -> float | None:
        """Examples a second of all jobs under way; None before any is known."""
        return _sum([course.rate for course in self.running])

    def left(self) -> float | None:
        """Seconds until everything is done; None before anything can be said.

        A job that has not started, or of which nothing is known yet, is taken to be as fast as
        those of the same learner, else of the same benchmark, else as all. As many jobs go on
        side by side as now, and none ends sooner than it would by itself.
        """
        known: dict[str, tuple[float, int]] = {}
        for started in list(self._courses.values()):
            seconds, examples = started.measured
            for kind in _kinds(started.job):
                before = known.get(kind, (0.0, 0))
                known[kind] = (before[0] + seconds, before[1] + examples)
        together = longest = 0.0
        for job in self.jobs:
            course = self.course(job)
            if course and course.how:
                continue
            own = course.measured if course else (0.0, 0)
            alike = (own, *(known.get(kind, (0.0, 0)) for kind in _kinds(job)))
            found = next((one for one in alike if one[1]), None)
            if found is None:
                return None
            seconds = (job.size - (course.done if course else 0)) * found[0] / found[1]
            together += seconds
            longest = max(longest, seconds)
        return max(together / max(len(self.running), 1), longest)


def _kinds(job: Job) -> tuple[str, str, str]:
    """What a job is like, from the nearest: its learner, its benchmark, any job."""
    return job.label, job.label.partition("/")[0] + "/", ""


@dataclass
class Row:
    """A learner on a benchmark, all its jobs together.

    Attributes:
        label: the jobs' label.
        seeds: how many.
        size: examples to be seen in all.
        done: examples seen.
        online: performance, averaged over the seeds that have one.
        rate: examples a second, as far as known.
        left: seconds until what is under way is done, as far as known.
        state: ``waiting``, ``running``, or how it ended.
    """

    label: str
    seeds: int
    size: int
    done: int
    online: Latest | None
    rate: float | None
    left: float | None
    state: str


def rows(work: Work) -> list[Row]:
    """The table's rows: a learner each, in the order in which they were planned."""
    by_label: dict[str, list[Job]] = {}
    for job in work.jobs:
        by_label.setdefault(job.label, []).append(job)
    return [_row(label, jobs, work) for label, jobs in by_label.items()]


def _row(label: str, jobs: Sequence[Job], work: Work) -> Row:
    courses = [course for job in jobs if (course := work.course(job))]
    going = [course for course in courses if not course.how]
    if going:
        state = "running"
    elif len(courses) < len(jobs):
        state = "waiting"
    else:
        state = ", ".join(dict.fromkeys(course.how for course in courses))
    lefts = [(course.job.size - course.done) / course.rate for course in going if course.rate]
    return Row(
        label=label,
        seeds=sum(len(job.folders) for job in jobs),
        size=sum(job.size for job in jobs),
        done=sum(course.done for course in courses),
        online=_mean_online(courses),
        rate=_sum([course.rate for course in going]),
        left=max(lefts) if lefts else None,
        state=state,
    )


def _mean_online(courses: Sequence[Course]) -> Latest | None:
    found = [(course.online, len(course.job.folders)) for course in courses if course.online]
    if not found:
        return None
    name = found[0][0][0]
    same = [(online[1], weight) for online, weight in found if online[0] == name]
    return name, sum(value * weight for value, weight in same) / sum(w for _, w in same)


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


class Table:
    """A table of learners that keeps itself up to date, and a line for each job that ends.

    Args:
        jobs: everything that is going to be done.
        console: the terminal.
    """

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
        from rich.live import Live

        self._work = Work(jobs)
        self._console = console
        self.display = Live(get_renderable=self.render, console=console, transient=True)

    def start(self, job: Job) -> None:
        """Note that the job starts."""
        self._work.start(job)

    def update(self, job: Job, done: int, online: Latest | None = None) -> None:
        """Note how far the job is."""
        self._work.update(job, done, online)

    def say(self, job: Job, text: str) -> None:
        """Print a line above the bars."""
        self.display.console.print(f"{_name(job)}: {text}", highlight=False, markup=False)

    def end(self, job: Job, how: str) -> None:
        """Say how the job ended."""
        course = self._work.end(job, how)
        took = duration(time.monotonic() - course.started)
        self._console.print(f"{_name(job)}: {how} ({took})", highlight=False, markup=False)

    def tick(self) -> None:
        """Nothing: the display refreshes itself."""

    def render(self) -> RenderableType:
        """The table as it is now; learners that do not fit the terminal are counted."""
        from rich import table
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        bar = 16 if self._console.width >= _WIDE else 6
        drawn = table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        drawn.add_column("learner")  # the only one to be cut in a narrow terminal
        drawn.add_column("seeds", justify="right", no_wrap=True)
        drawn.add_column("", width=bar)
        for name in ("", "last window", "rate", "left"):
            drawn.add_column(name, justify="right", no_wrap=True)
        found = rows(self._work)
        kept = _fitting(found, self._console.height - _AROUND)
        cells = [
            (
                str(row.seeds),
                f"{row.done / row.size:.0%}",
                online_text(row.online),
                rate_text(row.rate) if row.state == "running" else "",
                duration(row.left) if row.state == "running" else row.state,
            )
            for row in kept
        ]
        headings = ("seeds", "100%", "last window", rate_text(self._work.rate), "left")
        taken = sum(max(map(len, column)) + 2 for column in zip(headings, *cells, strict=True))
        labels = apart([row.label for row in kept], self._console.width - taken - bar - 2)
        for row, label, of_row in zip(kept, labels, cells, strict=True):
            drawn.add_row(
                Text(label, no_wrap=True, overflow="ellipsis"),
                of_row[0],
                ProgressBar(row.size, row.done, width=bar),
                *of_row[1:],
                style="dim" if row.state == "waiting" else "",
            )
        hidden = [row for row in found if row not in kept]
        if hidden:
            waiting = sum(row.state == "waiting" for row in hidden)
            rest = f"{len(hidden)} more, of them {waiting} waiting"
            drawn.add_row(rest, *[""] * 6, style="dim")
        work = self._work
        drawn.add_row(
            "all",
            str(sum(row.seeds for row in found)),
            ProgressBar(work.total, work.done, width=bar),
            f"{work.done / work.total:.0%}",
            "",
            rate_text(work.rate),
            duration(work.left()),
            style="bold",
        )
        return drawn


def _fitting(found: Sequence[Row], room: int) -> list[Row]:
    """As many rows as there is room for: what runs first, then what ended last, then the rest."""
    order = {"running": 0, "waiting": 2}
    ranked = sorted(
        range(len(found)),
        key=lambda i: (order.get(found[i].state, 1), i if found[i].state == "waiting" else -i),
    )
    kept = set(ranked[: max(room, 1)])
    return [row for i, row in enumerate(found) if i in kept]


def apart(labels: Sequence[str], width: int) -> list[str]:
    """Labels cut to a width, if need be, so that no two look the same.

    What goes first is the end of the benchmark's name, then the middle of the rest.
    """
    width = max(width, 8)
    cut = [_cut(label, width) for label in labels]
    if len(set(cut)) == len(set(labels)):
        return cut
    return [f"{i}…{label[len(str(i)) + 1 - width :]}" for i, label in enumerate(labels, 1)]


def _cut(label: str, width: int) -> str:
    if len(label) <= width:
        return label
    benchmark, slash, learner = label.partition("/")
    room = width - len(learner) - 2
    if slash and room > 0:
        return f"{benchmark[:room]}…/{learner}"
    rest = learner or label
    tail = (width - 1) * 2 // 3
    return rest if len(rest) <= width else f"{rest[: width - 1 - tail]}…{rest[-tail:]}"


class Lines:
    """A line now and then.

    Args:
        jobs: everything that is going to be done.
        console: where to.
    """

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
        self._work = Work(jobs)
        self._console = console
        self._said = time.monotonic()

    def start(self, job: Job) -> None:
        """Say that the job starts."""
        self._work.start(job)
        self._say(f"{_name(job)}: started")

    def update(self, job: Job, done: int, online: Latest | None = None) -> None:
        """Note how far the job is."""
        self._work.update(job, done, online)

    def say(self, job: Job, text: str) -> None:
        """Print a line."""
        self._say(f"{_name(job)}: {text}")

    def end(self, job: Job, how: str) -> None:
        """Say how the job ended."""
        self._work.end(job, how)
        self._say(f"{_name(job)}: {how}")

    def tick(self) -> None:
        """Say how far everything is, if that was not said lately."""
        now = time.monotonic()
        if now - self._said < INTERVAL:
            return
        self._said = now
        work = self._work
        performing = [
            f"{row.label} {online_text(row.online)}"
            for row in rows(work)
            if row.state == "running" and row.online
        ]
        more = f" and {len(performing) - _NAMED} more" if len(performing) > _NAMED else ""
        self._say(
            f"{work.done:,}/{work.total:,} {unit(work.jobs)}, {rate_text(work.rate)}, "
            + "; ".join([f"{duration(work.left())} left", *performing[:_NAMED]])
            + more
        )

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def unit(jobs: Sequence[Job]) -> str:
    """What jobs count: ``examples`` of streams, ``steps`` of environments, and of both together."""
    return "examples" if {job.config.agent.name for job in jobs} == {"supervised"} else "steps"


def online_text(online: Latest | None) -> str:
    """Online performance in words, such as ``accuracy 81.2%`` or ``return 123``."""
    if online is None:
        return ""
    name, value = online
    if name == "accuracy":
        return f"{name} {value:.1%}"
    return f"{name} {value:,.0f}" if abs(value) >= 100 else f"{name} {value:.3g}"


def rate_text(rate: float | None) -> str:
    """A rate, such as ``5,213/s``; ``-/s`` where not known."""
    return "-/s" if rate is None else f"{rate:,.0f}/s"


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
