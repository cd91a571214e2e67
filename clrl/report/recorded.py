"""What runs recorded, as arrays and as one table, in full: for notebooks and scripts.

A folder may be that of runs which are still going, or damaged: what can be read is there, and
`Recorded.problems` says what cannot.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl.errors import UsageError
from clrl.report.results import Key, locate
from clrl.report.runs import Column, columns
from clrl.settings.values import suggestion
from clrl.storage import record

Array = NDArray[np.float64]

COLUMNS = ("benchmark", "learner", "seed", "step", "metric", "value")
"""The columns of the tidy table."""

_FRAMES = ("pandas", "polars")  # of which the first that is installed makes the table


@dataclass(frozen=True)
class Curve:
    """One metric over the steps of some seeds.

    NumPy takes it as the array of its values.

    Attributes:
        steps: where there is a value of any seed, int64 ``[points]``, in rising order.
        values: float64 ``[seeds, points]``; nan where a seed has none, or none that is finite.
        seeds: the seed of each row.
    """

    steps: NDArray[np.int64]
    values: Array
    seeds: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """``(seeds, points)``."""
        return len(self.seeds), len(self.steps)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The values."""
        return np.array(self.values, dtype=dtype, copy=copy)


@dataclass(frozen=True)
class Recorded:
    """Runs of a folder, and what they recorded. Files are read when they are asked for.

    Attributes:
        folder: where the runs are.
        runs: (benchmark, learner, seed) to the run's folder; None for one that left nothing.
        problems: what is wrong with the folder itself, a sentence each.
    """

    folder: Path
    runs: Mapping[Key, Path | None]
    problems: tuple[str, ...] = ()

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The labels of the benchmarks."""
        return tuple(dict.fromkeys(key[0] for key in self.runs))

    @property
    def learners(self) -> tuple[str, ...]:
        """The labels of the learners."""
        return tuple(dict.fromkeys(key[1] for key in self.runs))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in rising order."""
        return tuple(sorted({key[2] for key in self.runs}))

    @property
    def states(self) -> dict[Key, str]:
        """How each run stands.

        ``finished``, ``diverged``, ``running``, ``preempted`` or ``failed`` as its
        ``status.json`` says, ``unknown`` where that cannot be read, ``missing`` where there is no
        run.
        """
        return {
            key: str(record.readable_status(path).get("state", "unknown")) if path else "missing"
            for key, path in self.runs.items()
        }

    @property
    def metrics(self) -> tuple[str, ...]:
        """The tags that any run has, in alphabetical order."""
        found = {tag for path in self.runs.values() for tag in _columns(path)}
        return tuple(sorted(found))

    def select(
        self,
        benchmark: str | None = None,
        learner: str | None = None,
        seeds: Iterable[int] | int | None = None,
    ) -> Recorded:
        """Some of the runs.

        Args:
            benchmark: the label of a benchmark; all unless given.
            learner: the label of a learner; all unless given.
            seeds: one or several; all unless given.

        Raises:
            UsageError: there is no such benchmark, learner or seed.
        """
        wanted = {seeds} if isinstance(seeds, int) else None if seeds is None else set(seeds)
        _known("benchmark", benchmark, self.benchmarks)
        _known("learner", learner, self.learners)
        for seed in sorted(wanted or ()):
            _known("seed", seed, self.seeds)
        kept = {
            key: path
            for key, path in self.runs.items()
            if benchmark in (None, key[0])
            and learner in (None, key[1])
            and (wanted is None or key[2] in wanted)
        }
        return replace(self, runs=kept)

    def curve(
        self, metric: str, *, benchmark: str | None = None, learner: str | None = None
    ) -> Curve:
        """One metric of one learner on one benchmark, all seeds beside each other.

        Several values at one step, such as those of tasks that end together, are several points.

        Args:
            metric: a tag, such as ``online/return``; see `metrics`.
            benchmark: the label of the benchmark; needed where there are several.
            learner: the label of the learner; needed where there are several.

        Raises:
            UsageError: benchmark or learner are not there or not told apart, or no run has the
                metric.
        """
        chosen = self.select(benchmark, learner)
        for kind, names in (("benchmark", chosen.benchmarks), ("learner", chosen.learners)):
            if len(names) != 1:
                raise UsageError(f"{kind}: expected one of {', '.join(names)}, got nothing")
        seeds = chosen.seeds
        found: list[dict[tuple[int, int], float]] = []
        for seed in seeds:
            path = chosen.runs.get((chosen.benchmarks[0], chosen.learners[0], seed))
            found.append(_points(_columns(path, (metric,)).get(metric)))
        places = sorted(set().union(*found))
        if not places:
            raise UsageError(f"metric: {suggestion(metric, list(chosen.metrics))}, got {metric!r}")
        values = np.array([[own.get(place, math.nan) for place in places] for own in found])
        return Curve(np.array([step for step, _ in places], np.int64), values, seeds)

    def table(self, metrics: Collection[str] | None = None) -> Any:
        """Every number as a table with the columns `COLUMNS`, a row for each finite value.

        Args:
            metrics: the tags to put in; all unless given.

        Returns:
            A data frame of pandas where that is installed, else one of polars where that is, else
            a list with a dictionary for each row.
        """
        data: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for key, path in self.runs.items():
            for tag, column in _columns(path, metrics).items():
                finite = np.isfinite(column.values)
                count = int(finite.sum())
                for name, value in zip(COLUMNS, (*key, None, tag, None), strict=True):
                    if value is not None:
                        data[name] += [value] * count
                data["step"] += column.steps[finite].astype(np.int64).tolist()
                data["value"] += column.values[finite].tolist()
        for name in _FRAMES:
            try:
                module = importlib.import_module(name)
            except ImportError:
                continue
            return module.DataFrame(data)
        return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*data.values(), strict=True)]

    def __repr__(self) -> str:
        """What there is, on one line."""
        states = list(self.states.values())
        counts = ", ".join(f"{states.count(one)} {one}" for one in dict.fromkeys(states))
        return (
            f"<{self.folder}: {len(self.runs)} runs ({counts}); "
            f"benchmarks {', '.join(self.benchmarks)}; learners {', '.join(self.learners)}>"
        )


def load(folder: str | Path) -> Recorded:
    """The results in a folder.

    Args:
        folder: what ``clrl suite`` or ``clrl run`` was given as ``--out``; runs may still be
            going, missing or damaged.

    Raises:
        UsageError: there is no such folder, or it holds no runs.
    """
    located = locate(Path(folder))
    return Recorded(Path(folder), located.folders, tuple(located.problems))


def _known(kind: str, name: Any, known: Collection[Any]) -> None:
    if name is not None and name not in known:
        near = suggestion(str(name), [str(one) for one in known])
        raise UsageError(f"unknown {kind} {name!r}; {near}")


def _columns(path: Path | None, metrics: Collection[str] | None = None) -> dict[str, Column]:
    """What a run recorded, as far as it can be read."""
    if path is None:
        return {}
    try:
        return columns(path / record.METRICS, lambda tag: metrics is None or tag in metrics)[0]
    except OSError:
        return {}


def _points(column: Column | None) -> dict[tuple[int, int], float]:
    """Step, and which of the values at it -> value."""
    found: dict[tuple[int, int], float] = {}
    if column is not None:
        before, count = -1, 0
        for step, value in zip(column.steps.astype(int).tolist(), column.values, strict=True):
            count = count + 1 if step == before else 0
            before = step
            found[step, count] = float(value)
    return found
