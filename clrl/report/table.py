"""The table at the end of a suite: a row a learner, mean and interval over seeds."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clrl.report.aggregate import interval, mean
from clrl.report.outcomes import average_online
from clrl.report.runs import Column, columns, limits
from clrl.settings.values import counted
from clrl.storage import record

WIDTH = 100
"""Columns of the table where there is no terminal."""

Columns = Mapping[str, Column]
"""What was recorded in a run: tag to steps and values."""


@dataclass(frozen=True)
class Figure:
    """A column of the table.

    Attributes:
        title: its heading.
        tag: where the value is in ``metrics.jsonl``.
        when: ``whole`` is the mean over the run, ``end`` the last value.
        percent: whether the value is a share, to be shown in percent.
    """

    title: str
    tag: str
    when: Literal["whole", "end"]
    percent: bool = False

    def of(self, run: Columns) -> float:
        """The figure of one run; nan where the run has none."""
        if self.tag not in run:
            return math.nan
        column = run[self.tag]
        if self.when == "whole":
            return average_online(column.steps, column.values)
        values = column.values[np.isfinite(column.values)]
        return float(values[-1]) if len(values) else math.nan


Line = tuple[tuple[str, str], int, dict[Figure, tuple[str, str]]]
"""A learner's label with a remark, the number of its seeds, and its cells."""

_CLASSIFICATION = (
    Figure("whole-run accuracy %", "online/accuracy", "whole", percent=True),
    Figure("last-task accuracy %", "task/accuracy", "end", percent=True),
)
_REGRESSION = (
    Figure("whole-run loss", "online/loss", "whole"),
    Figure("last-task loss", "task/loss", "end"),
)
_CONTROL = (
    Figure("whole-run return", "online/return", "whole"),
    Figure("last-task return", "task/return", "end"),
)
_DIAGNOSTICS = (
    ("dead units %", "dead_units"),
    ("effective rank", "effective_rank"),
    ("gradient norm", "grad_norm"),
    ("weight magnitude", "weight_magnitude"),
)

_RETENTION = (
    Figure("all tasks %", "retention/average_accuracy", "end", percent=True),
    Figure("new tasks %", "retention/learning_accuracy", "end", percent=True),
    Figure("earlier tasks %", "retention/retained_accuracy", "end", percent=True),
    Figure("forgetting %", "retention/forgetting", "end", percent=True),
    Figure("kept MB", "cost/memory", "end"),
    Figure("examples learned", "cost/examples", "end"),
)
_RETENTION_OF_RETURN = (
    Figure("all tasks", "retention/average_return", "end"),
    Figure("new tasks", "retention/learning_return", "end"),
    Figure("earlier tasks", "retention/retained_return", "end"),
    Figure("forgetting", "retention/forgetting", "end"),
    Figure("kept MB", "cost/memory", "end"),
)
_ALL = (*_CLASSIFICATION, *_REGRESSION, *_CONTROL, *_RETENTION, *_RETENTION_OF_RETURN)
_TAGS = {figure.tag for figure in _ALL} | {"online/episodes"}


def _wanted(tag: str) -> bool:
    kind, *rest = tag.split("/")
    return tag in _TAGS or (
        kind == "plasticity" and len(rest) == 2 and rest[1] in dict(_DIAGNOSTICS).values()
    )


def _of_networks(tags: Set[str]) -> list[Figure]:
    """The columns of each network that was measured, named where it has a name."""
    networks = sorted({tag.split("/")[1] for tag in tags if tag.startswith("plasticity/")})
    return [
        Figure(
            title if network == "network" else f"{network} {title}",
            f"plasticity/{network}/{metric}",
            "end",
            percent=metric == "dead_units",
        )
        for network in networks
        for title, metric in _DIAGNOSTICS
        if f"plasticity/{network}/{metric}" in tags
    ]


def print_tables(folder: Path, console: Console | None = None) -> None:
    """Print one table for each benchmark of a suite's folder.

    A run that diverged counts up to the step where it did; how many did is said beside
    the learner. Runs that are not over are left out.

    Args:
        folder: the suite's folder.
        console: where to; standard output unless given.
    """
    if console is None:
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
    runs = [path for path in record.run_folders(folder) if _state(path) in record.DONE]
    for benchmark, of_benchmark in itertools.groupby(runs, lambda path: path.parent.parent):
        learners = {
            learner.name: list(of_learner)
            for learner, of_learner in itertools.groupby(of_benchmark, lambda path: path.parent)
        }
        for table in benchmark_tables(benchmark.name, learners, console.width):
            console.print(table)


def print_failures(failures: Sequence[tuple[str, Sequence[int], str]]) -> None:
    """Print a table of what failed to standard error.

    Args:
        failures: label, seeds and message of each population that did.
    """
    console = Console(stderr=True, width=None if sys.stderr.isatty() else WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("runs", "seeds", "what happened"):
        table.add_column(heading, overflow="fold")
    for label, seeds, message in failures:
        table.add_row(*map(Text, (label, ",".join(map(str, seeds)), message)))
    console.print(table)


def print_plan(
    populations: Sequence[tuple[str, Sequence[int], bool, float]], where: str, at_a_time: int
) -> None:
    """Print what a suite would do, and how long that takes.

    Args:
        populations: label, seeds, whether it goes on from a checkpoint, and hours of each.
        where: what to say of the place.
        at_a_time: how many are in training side by side.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("population", "seeds", "time", ""):
        table.add_column(heading, justify="right" if heading == "time" else "left")
    for label, seeds, resumes, hours in populations:
        remark = "from its checkpoint" if resumes else ""
        table.add_row(*map(Text, (label, _seeds(seeds), rough(hours), remark)))
    console.print(table)
    total = sum(hours for *_, hours in populations)
    runs = sum(len(seeds) for _, seeds, *_ in populations)
    console.print(
        f"{counted(runs, 'run')} in {counted(len(populations), 'population')}, "
        f"{rough(total)} of one core; {where}, "
        f"about {rough(total / max(1, at_a_time))}. Nothing was written.",
        highlight=False,
        soft_wrap=True,
    )


def rough(hours: float) -> str:
    """A time to come in words, in two digits: ``12 s``, ``3 min``, ``1.4 h`` or ``2.1 days``."""
    for unit, size, below in _UNITS:
        value = float(f"{hours / size:.2g}")
        if value < below:
            return f"{value:.1f} {unit}" if size >= 1 and value < 10 else f"{value:.0f} {unit}"
    raise ValueError(f"expected hours, got {hours}")


_UNITS = (("s", 1 / 3600, 60), ("min", 1 / 60, 60), ("h", 1.0, 48), ("days", 24.0, math.inf))


def _seeds(seeds: Sequence[int]) -> str:
    whole = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))) and len(seeds) > 1
    return f"{seeds[0]}-{seeds[-1]}" if whole else ",".join(map(str, seeds))


def benchmark_tables(benchmark: str, learners: dict[str, list[Path]], width: int) -> list[Table]:
    """The table of one benchmark, cut into several below each other where it is too wide.

    Args:
        benchmark: its label.
        learners: label to the folders of finished runs.
        width: columns to fit into; an interval goes below its mean where that is needed.

    Returns:
        Tables to print.
    """
    metrics = {label: [_read(folder) for folder in of] for label, of in learners.items()}
    tags = {tag for runs in metrics.values() for run in runs for tag in run}
    figures: list[Figure] = [*_REGRESSION]
    if "online/accuracy" in tags:
        figures = [*_CLASSIFICATION]
    elif "online/episodes" in tags:
        figures = [*_CONTROL]
    if "retention/average_accuracy" in tags:
        figures[1:1] = _RETENTION
    elif "retention/average_return" in tags:
        figures[1:1] = _RETENTION_OF_RETURN
    figures += _of_networks(tags)
    lines: list[Line] = []
    for label, runs in metrics.items():
        diverged = sum(_state(folder) == "diverged" for folder in learners[label])
        name = (label, f"({diverged} diverged)" if diverged else "")
        cells = {figure: summary(figure, runs) for figure in figures}
        lines.append((name, len(runs), cells))
    return _fitted(benchmark, lines, list(lines[0][2]), width)


def summary(figure: Figure, runs: Sequence[Columns]) -> tuple[str, str]:
    """A cell: mean over seeds, and its interval.

    Args:
        figure: what to show.
        runs: what each seed's run recorded.

    Returns:
        The mean and the interval as text. The interval is empty with fewer than three seeds, and
        where the seeds agree to the digits shown; the mean is a dash where no run has the figure.
    """
    values = [value for rows in runs if math.isfinite(value := figure.of(rows))]
    if not values:
        return "-", ""
    scale = 100 if figure.percent else 1
    low, high = (scale * float(bound) for bound in interval(values, *limits(figure.tag)))
    middle = scale * float(mean(values))
    digits = 1 if figure.percent else _decimals(middle)
    bounds = [f"{bound:.{digits}f}" for bound in (low, high)]
    shown = math.isfinite(low) and bounds[0] != bounds[1]
    return f"{middle:.{digits}f}", f"[{bounds[0]}, {bounds[1]}]" if shown else ""


def _decimals(value: float) -> int:
    """Decimals that show three digits of a value, or two of a small one."""
    if value == 0:
        return 1
    magnitude = math.floor(math.log10(abs(value)))
    return max(0, 2 - magnitude if magnitude >= -1 else 1 - magnitude)


def _read(folder: Path) -> Columns:
    try:
        return columns(folder / record.METRICS, _wanted)[0]
    except OSError:
        return {}


def _state(folder: Path) -> str:
    return str(record.readable_status(folder).get("state"))


def _fitted(
    benchmark: str, lines: Sequence[Line], figures: Sequence[Figure], width: int
) -> list[Table]:
    for narrow in (False, True):
        table = _table(benchmark, lines, figures, narrow)
        if Console(width=1000).measure(table).maximum <= width:
            return [table]
    if len(figures) == 1:
        return [table]
    half = (len(figures) + 1) // 2
    parts = (figures[:half], figures[half:])
    return [table for part in parts for table in _fitted(benchmark, lines, part, width)]


def _table(benchmark: str, lines: Sequence[Line], figures: Sequence[Figure], narrow: bool) -> Table:
    """The table of some figures; a narrow one has the second part of a cell below the first."""
    table = Table(
        title=Text(f"{benchmark}: mean over seeds [interval]", style="table.title"),
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1 if narrow else 2, 0, 0),
    )
    table.add_column("learner", overflow="fold")
    table.add_column("seeds", no_wrap=True)
    for figure in figures:
        # A word a line, the last one with its sign.
        words = figure.title.replace(" %", "\N{NO-BREAK SPACE}%").split(" ")
        table.add_column("\n".join(words) if narrow else figure.title, no_wrap=True)
    for name, seeds, by_figure in lines:
        cells = [name, (str(seeds), ""), *(by_figure[figure] for figure in figures)]
        if narrow:
            texts = ["\n".join(filter(None, cell)).replace(", ", ",") for cell in cells]
        else:
            texts = [" ".join(filter(None, cell)) for cell in cells]
        table.add_row(*(Text(text) for text in texts))
    return table
