"""A run, reduced to what a report needs: curves of a few hundred points and some figures.

A metrics file is read line by line and reduced at once, so that the memory needed depends on the
number of runs and not on their length. Nothing named in a results folder is imported.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from clrl.report import outcomes
from clrl.storage import record

Array = NDArray[np.float64]

POINTS = 240
"""Points of a curve at most; longer ones are averaged over windows of equal length."""
_WITHIN_TASK = 60
_LEAST_WITHIN_TASK = 4


@dataclass(frozen=True)
class Performance:
    """What counts as performance on a benchmark.

    Attributes:
        name: as a reader calls it.
        online: tag of the online curve.
        task: tag of the figure of a task.
        higher_is_better: False for losses.
        percent: whether it is a share, to be shown in percent.
    """

    name: str
    online: str
    task: str
    higher_is_better: bool = True
    percent: bool = False


PERFORMANCES = (
    Performance("return", "online/return", "task/return"),
    Performance("accuracy", "online/accuracy", "task/accuracy", percent=True),
    Performance("loss", "online/loss", "task/loss", higher_is_better=False),
)
"""The first that a run has is its performance."""


@dataclass(frozen=True)
class Grid:
    """Where the points of a benchmark's curves are.

    Attributes:
        width: steps between two points.
        points: how many there are, step 0 included.
    """

    width: float
    points: int

    @classmethod
    def of(cls, steps: int, log_every: int) -> Grid:
        """The grid of runs of so many steps with a line every so many."""
        lines = max(1, math.ceil(steps / max(1, log_every)))
        merged = math.ceil(lines / POINTS)
        return cls(merged * max(1, log_every), math.ceil(lines / merged) + 1)

    @property
    def steps(self) -> Array:
        """Where the points are, ``(points,)``."""
        return np.arange(self.points, dtype=np.float64) * self.width

    def index(self, steps: Array) -> NDArray[np.int64]:
        """The point to which each step belongs: the next one."""
        return np.clip(np.ceil(steps / self.width), 0, self.points - 1).astype(np.int64)


@dataclass(frozen=True)
class Column:
    """The values of one tag in the order of the lines: ``steps`` and ``values``."""

    steps: Array
    values: Array


@dataclass
class Run:
    """One run, reduced.

    Attributes:
        benchmark: label of its benchmark.
        learner: label of its learner.
        seed: its seed.
        state: as ``status.json`` says; ``missing`` for a run that left nothing.
        step: the last step that was recorded.
        problems: what is wrong with its files, a sentence each.
        performance: what counts as performance; None where nothing was recorded.
        curves: tag to a curve on the benchmark's grid, nan where there is no value.
        ends: the last finite value of each tag.
        online: average online performance.
        tasks: performance on each task, by its index.
        changes: the steps at which a task ended and the next began.
        levels: performance before each change.
        bests: the windows from which on a task went better than before; see
            `clrl.report.outcomes.bests_since`.
        early: performance by steps since the change, mean over the first fifth of tasks.
        late: the same over the last fifth.
        within: steps since the change of the points of ``early`` and ``late``.
        status: all that ``status.json`` holds.
    """

    benchmark: str
    learner: str
    seed: int
    state: str = "missing"
    step: int = 0
    problems: list[str] = field(default_factory=list)
    performance: Performance | None = None
    curves: dict[str, Array] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    online: float = math.nan
    tasks: Array = field(default_factory=lambda: np.empty(0))
    changes: Array = field(default_factory=lambda: np.empty(0))
    levels: Array = field(default_factory=lambda: np.empty(0))
    bests: tuple[Array, Array] = field(default_factory=lambda: (np.empty(0), np.empty(0)))
    early: Array = field(default_factory=lambda: np.empty(0))
    late: Array = field(default_factory=lambda: np.empty(0))
    within: Array = field(default_factory=lambda: np.empty(0))
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether it will not go on."""
        return self.state in record.DONE

    @property
    def name(self) -> str:
        """What a reader calls it."""
        return f"{self.benchmark}/{self.learner} seed {self.seed}"


Work = tuple[Path | None, tuple[str, str, int], Grid]
"""A run to read: its folder, None where there is none; benchmark, learner and seed; grid."""


def columns(path: Path, wanted: Callable[[str], bool]) -> tuple[dict[str, Column], int, bool]:
    """Read some tags of a ``metrics.jsonl``.

    Args:
        path: the file.
        wanted: which tags.

    Returns:
        Tag to its values; the number of lines that could not be read; and whether the last
        line was cut off. Lines that are not JSON objects with a step that does not go back,
        or that hold something else than numbers, count as lines that could not be read.

    Raises:
        OSError: the file cannot be read.
    """
    rows: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    getters: dict[tuple[str, ...], tuple[tuple[str, ...], Callable[[Any], Any]]] = {}
    bad, cut, last = 0, False, 0
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                cut = True
                break
            try:
                row = orjson.loads(line)
                step = row["step"]
                if type(step) is not int or step < last:
                    raise ValueError
                shape = tuple(row)
                if shape not in getters:
                    tags = tuple(tag for tag in shape if tag != "step" and wanted(tag))
                    getters[shape] = (tags, operator.itemgetter("step", "step", *tags))
                tags, getter = getters[shape]
                if not tags:
                    last = step
                    continue
                values = getter(row)
                if not set(map(type, values)) <= _NUMBERS:
                    raise ValueError
            except (ValueError, TypeError, KeyError):
                bad += 1
                continue
            last = step
            rows.setdefault(tags, []).append((number, *values[1:]))
    return _by_tag(rows), bad, cut


_NUMBERS = {int, float, type(None)}


def _by_tag(rows: Mapping[tuple[str, ...], list[tuple[Any, ...]]]) -> dict[str, Column]:
    """Rows by the tags they hold -> a column a tag, in the order of the lines."""
    parts: dict[str, list[Array]] = {}
    for tags, found in rows.items():
        block = np.array(found, np.float64)  # (lines, 2 + tags): number of the line, step, ...
        for index, tag in enumerate(tags, start=2):
            parts.setdefault(tag, []).append(block[:, [0, 1, index]])
    made = {}
    for tag, blocks in parts.items():
        whole = np.concatenate(blocks)
        whole = whole[np.argsort(whole[:, 0], kind="stable")]
        made[tag] = Column(whole[:, 1].copy(), whole[:, 2].copy())
    return made


def limits(tag: str) -> tuple[float, float]:
    """Below and above what a tag's values cannot be, such as 0 and 1 for shares."""
    name = tag.rpartition("/")[2]
    if name.endswith(("accuracy", "_units", "_fraction", "_activations")):
        return 0.0, 1.0
    of_network = tag.startswith("plasticity/") and name != "step_plasticity"
    return (0.0 if of_network or name == "loss" else -math.inf), math.inf


def is_share(tag: str) -> bool:
    """Whether a tag's values are shares, to be shown in percent."""
    return limits(tag) == (0.0, 1.0)


def _wanted(tag: str) -> bool:
    """The tags that a report shows; of single layers only how many units are dead at the end."""
    if tag.startswith("plasticity/"):
        return tag.count("/") == 2 or _of_layer(tag)
    return tag.startswith(("online/", "task/"))


def _of_layer(tag: str) -> bool:
    return tag.startswith("plasticity/") and "/dead_units/" in tag


def read_run(work: Work) -> Run:
    """Read one run and reduce it."""
    folder, key, grid = work
    run = Run(*key)
    if folder is None:
        return run
    run.status = record.readable_status(folder)
    run.state = str(run.status.get("state", "unknown"))
    if not run.status:
        run.problems.append(f"{record.STATUS} is missing or damaged")
    try:
        found, bad, cut = columns(folder / record.METRICS, _wanted)
    except OSError as error:
        run.problems.append(f"{record.METRICS} cannot be read: {error.strerror}")
        return run
    if bad:
        run.problems.append(
            f"{bad} damaged {'line' if bad == 1 else 'lines'} in {record.METRICS} left out"
        )
    if cut and run.over:
        run.problems.append(f"the last line of {record.METRICS} is cut off")
    if run.over and not found:
        run.problems.append(f"{record.METRICS} holds nothing")
    _reduce(run, found, grid)
    return run


def _reduce(run: Run, found: Mapping[str, Column], grid: Grid) -> None:
    for tag, column in found.items():
        run.step = max(run.step, int(column.steps[-1]))
        finite = column.values[np.isfinite(column.values)]
        if len(finite):
            run.ends[tag] = float(finite[-1])
            if not tag.startswith("task/") and not _of_layer(tag):
                run.curves[tag] = _on_grid(column, grid)
    run.performance = next((p for p in PERFORMANCES if p.online in run.curves), None)
    if run.performance is None:
        return
    online = found[run.performance.online]
    run.online = outcomes.average_online(online.steps, online.values)
    index, task = found.get("task/index"), found.get(run.performance.task)
    if index is None or task is None or len(index.steps) != len(task.steps):
        return
    # The line on which a task is over; a line a task, in their order.
    order = index.values.astype(np.int64)
    run.tasks = np.full(order.max() + 1, np.nan)
    run.tasks[order] = task.values
    run.changes = index.steps[:-1]
    _after_changes(run, online, run.performance.higher_is_better)


def _after_changes(run: Run, online: Column, higher_is_better: bool) -> None:
    """What needs the curve in full: recovery, and the curves since the change."""
    starts = np.concatenate([[0.0], run.changes])
    length = float(np.median(np.diff(np.append(starts, run.step))))
    window = float(np.median(np.diff(online.steps, prepend=0.0)))
    points = int(length // max(window, 1.0))
    if points < _LEAST_WITHIN_TASK or not len(run.changes):
        return
    run.levels = outcomes.levels_before(online.steps, online.values, run.changes)
    run.bests = outcomes.bests_since(online.steps, online.values, run.changes, higher_is_better)
    points = min(points, _WITHIN_TASK)
    run.within = (np.arange(points) + 1) * length / points
    task = np.searchsorted(run.changes, online.steps, side="left")
    since = online.steps - starts[task]
    place = np.clip(np.ceil(since * points / length) - 1, 0, points - 1).astype(np.int64)
    size = max(1, len(starts) // 5)
    for name, chosen in (("early", task < size), ("late", task >= len(starts) - size)):
        kept = chosen & np.isfinite(online.values) & (since <= length)
        setattr(run, name, _means(place[kept], online.values[kept], None, points))


def _on_grid(column: Column, grid: Grid) -> Array:
    """A curve on the grid: the mean of what falls between two points, by length of window."""
    lengths = np.maximum(np.diff(column.steps, prepend=0.0), 1e-9)
    kept = np.isfinite(column.values)
    return _means(
        grid.index(column.steps[kept]), column.values[kept], lengths[kept], grid.points
    ).astype(np.float32)


def _means(index: NDArray[np.int64], values: Array, weights: Array | None, points: int) -> Array:
    """Weighted means of the values by index, nan where there is none."""
    weights = np.ones(len(values)) if weights is None else weights
    total = np.bincount(index, weights * values, points)
    weight = np.bincount(index, weights, points)
    with np.errstate(invalid="ignore"):
        return total / np.where(weight > 0, weight, np.nan)
