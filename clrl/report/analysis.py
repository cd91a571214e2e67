"""From runs to conclusions: what is compared with what, and what the comparison gives.

A suite's learners become *methods*. A sweep's settings are one method: the best of them, chosen
on one half of the seeds and reported on the other. Scratch references are no methods; they are
what methods are measured against.

Runs that are over count; those that diverged are counted apart: they are in no mean, and in
comparisons each stands for the worst run of its benchmark. As long as no run of a benchmark is
over, unfinished ones count as far as they are, `Study.preliminary` says so, and nothing is
compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl.errors import UsageError
from clrl.report import outcomes
from clrl.report.aggregate import LEAST_SEEDS, correlation_within, interval, mean
from clrl.report.claims import Claims, compare
from clrl.report.results import Results
from clrl.report.runs import Grid, Performance, Run, limits

Array = NDArray[np.float64]
Of = Callable[[Run], float]
"""A figure of a run; nan where the run has none."""

UNLIMITED = (-math.inf, math.inf)

DIAGNOSTICS = ("dead_units", "effective_rank", "grad_norm", "weight_magnitude")
"""The metrics that have panels and columns unless more are asked for; all that were recorded are in
the table of correlations."""


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds.

    Attributes:
        value: the statistic; nan where no seed has the figure.
        low: lower bound of its interval; nan with fewer than three seeds, where all seeds agree,
            and of statistics other than the mean.
        high: upper bound.
        seeds: how many seeds it is of.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds: int = 0

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        statistic: Callable[[Any], Array] = mean,
        within: tuple[float, float] = UNLIMITED,
    ) -> Estimate:
        """The estimate from one value a seed; values that are not finite are left out.

        Args:
            values: one a seed.
            statistic: what is said of them; the mean alone has an interval.
            within: below and above what they cannot be.
        """
        found = np.array([value for value in values if math.isfinite(value)])
        if not len(found):
            return cls()
        low, high = interval(found, *within) if statistic is mean else (math.nan, math.nan)
        return cls(float(statistic(found)), float(low), float(high), len(found))

    def scaled(self, by: float) -> Estimate:
        """The same in another unit."""
        return Estimate(by * self.value, by * self.low, by * self.high, self.seeds)


@dataclass
class Method:
    """What is compared: a learner, or the best of a sweep.

    Attributes:
        label: what it is called.
        learner: the label of the entry whose runs these are.
        runs: its runs, in the order of seeds.
        counted: those of them that figures are taken over.
        remark: what a reader must know about how it came to be.
    """

    label: str
    learner: str
    runs: list[Run]
    counted: list[Run] = field(default_factory=list)
    remark: str = ""

    def of(
        self,
        figure: Of,
        statistic: Callable[[Any], Array] = mean,
        within: tuple[float, float] = UNLIMITED,
    ) -> Estimate:
        """A figure over the runs that count; see `Estimate.of`."""
        return Estimate.of([figure(run) for run in self.counted], statistic, within)

    def curve(self, tag: str) -> tuple[Array, Array, Array]:
        """Mean and interval of a curve: ``(points,)`` each, nan where no seed has a value.

        Every run that has a value at a point counts there, finished or not.
        """
        curves = [run.curves[tag] for run in self.runs if tag in run.curves]
        return over_seeds(np.stack(curves), *limits(tag)) if curves else (np.empty(0),) * 3

    def tasks(self) -> Array:
        """Performance on each task, ``(seeds, tasks)``, nan where a task was not reached."""
        length = max((len(run.tasks) for run in self.counted), default=0)
        found = np.full((len(self.counted), length), np.nan)
        for row, run in zip(found, self.counted, strict=True):
            row[: len(run.tasks)] = run.tasks
        return found

    def count(self, state: str) -> int:
        """How many runs are in a state."""
        return sum(run.state == state for run in self.runs)


@dataclass(frozen=True)
class Sweep:
    """The settings of a sweep and how they did.

    Attributes:
        name: the sweep's.
        keys: the options that differ between its settings, such as ``optimizer.lr``.
        settings: label of the entry to its value of each key, in the order of ``keys``.
        estimates: label to performance over all seeds.
        best: the label of the setting that was chosen.
        chosen_on: the seeds it was chosen on.
        reported_on: the seeds that the report shows.
    """

    name: str
    keys: list[str]
    settings: dict[str, list[Any]]
    estimates: dict[str, Estimate]
    best: str
    chosen_on: list[int]
    reported_on: list[int]


@dataclass(frozen=True)
class Correlation:
    """How a metric halfway through a run goes with performance at the run's end.

    Attributes:
        tag: the metric's.
        value: Spearman's correlation over the seeds within each method, turned so that better
            performance is higher; nan where the metric does not differ between seeds.
        low: lower bound of its interval over seeds; nan with fewer than four.
        high: upper bound.
        runs: how many runs it is of.
    """

    tag: str
    value: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Recovery:
    """How a run came back after changes of task.

    Attributes:
        share: of the changes after which it was back before the next one.
        steps: until then, mean over those changes; nan where there is none.
    """

    share: float
    steps: float


@dataclass
class Study:
    """One benchmark of a suite.

    Attributes:
        benchmark: its label.
        performance: what counts as performance; None where nothing was recorded.
        grid: where the points of curves are.
        methods: in the order of their means where they are compared, else of the suite.
        scratch: learner's label to its scratch reference.
        sweeps: the sweeps among its learners.
        preliminary: whether unfinished runs count, since none is over.
        claims: the comparisons that are made, and what they show.
        correlations: of every metric that was recorded of networks.
        shown: names of the metrics of networks that have panels and columns.
    """

    benchmark: str
    performance: Performance | None
    grid: Grid
    methods: list[Method]
    scratch: dict[str, Method]
    sweeps: list[Sweep]
    preliminary: bool
    claims: Claims = field(default_factory=Claims)
    correlations: list[Correlation] = field(default_factory=list)
    shown: tuple[str, ...] = DIAGNOSTICS

    @property
    def networks(self) -> list[str]:
        """The networks that metrics were recorded of, such as ``actor``."""
        return sorted({network for network, _ in self._measured()})

    @property
    def metrics(self) -> list[str]:
        """The metrics that were recorded of networks, such as ``dormant_units``."""
        return sorted({metric for _, metric in self._measured()})

    def _measured(self) -> set[tuple[str, ...]]:
        tags = {tag for method in self.methods for run in method.runs for tag in run.curves}
        return {tuple(tag.split("/")[1:3]) for tag in tags if tag.startswith("plasticity/")}

    @property
    def sign(self) -> int:
        """1 where more is better, -1 for losses."""
        return 1 if self.performance is None or self.performance.higher_is_better else -1

    def loss_of_plasticity(self, run: Run) -> float:
        """Loss of plasticity of a run: over its tasks, or over its curve where it has none."""
        values = self.sequence(run)
        return outcomes.loss_of_plasticity(values, higher_is_better=self.sign > 0)

    def last(self, run: Run) -> float:
        """Performance in the last fifth of a run."""
        return outcomes.first_and_last(self.sequence(run))[1]

    def first(self, run: Run) -> float:
        """Performance in the first fifth of a run."""
        return outcomes.first_and_last(self.sequence(run))[0]

    def sequence(self, run: Run) -> Array:
        """Performance task by task, or window by window where there are not two tasks."""
        if len(run.tasks) > 1 or self.performance is None:
            return run.tasks
        return run.curves.get(self.performance.online, np.empty(0))

    @property
    def limits(self) -> tuple[float, float]:
        """Below and above what performance cannot be."""
        return UNLIMITED if self.performance is None else limits(self.performance.online)

    def scores(self, method: Method) -> list[float]:
        """One number a run that counts, more being better, none missing.

        A run that diverged gets the worst score of the benchmark.
        """
        every = [run.online for m in self.methods for run in m.counted]
        worst = min((self.sign * value for value in every if math.isfinite(value)), default=0.0)
        return [
            self.sign * run.online if math.isfinite(run.online) and run in method.counted else worst
            for run in method.runs
            if run in method.counted or run.state == "diverged"
        ]

    def gap(self, method: Method) -> tuple[Array, Array, Array] | None:
        """Plasticity gap of each task, mean and interval over seeds; None without reference.

        Seeds are paired, since a seed decides the tasks.
        """
        gaps = self.gaps(method)
        return None if gaps is None else over_seeds(gaps)

    def gaps(self, method: Method) -> Array | None:
        """Plasticity gap, ``(seeds, tasks)``, of the seeds that both sides have."""
        reference = self.scratch.get(method.learner)
        if reference is None:
            return None
        fresh = {run.seed: run.tasks for run in reference.counted}
        pairs = [(fresh[run.seed], run.tasks) for run in method.counted if run.seed in fresh]
        tasks = min((len(one) for pair in pairs for one in pair), default=0)
        if not tasks:
            return None
        one, other = (np.stack([pair[side][:tasks] for pair in pairs]) for side in (0, 1))
        return outcomes.plasticity_gap(one, other, self.sign > 0)

    def recovery(self, method: Method) -> list[Recovery]:
        """How each seed came back after changes, of those in which that can be seen.

        What there is to come back to is the best level so far that the method's seeds had before
        a change, on average: one that stays low does not come back by staying there.
        """
        runs = [run for run in method.counted if len(run.levels)]
        changes = min((len(run.levels) for run in runs), default=0)
        if not changes:
            return []
        level = self.sign * np.stack([run.levels[:changes] for run in runs])
        known = np.isfinite(level)
        with np.errstate(invalid="ignore"):
            together = np.where(known, level, 0).sum(axis=0) / known.sum(axis=0)
        best = self.sign * np.fmax.accumulate(together)
        found = []
        for run in runs:
            times = outcomes.recovery_times(
                *run.bests, run.changes[:changes], best, higher_is_better=self.sign > 0
            )
            back = times[np.isfinite(times)]
            seen = int((~np.isnan(times)).sum())
            if seen:
                steps = float(back.mean()) if len(back) else math.nan
                found.append(Recovery(len(back) / seen, steps))
        return found


def over_seeds(
    curves: Array, least: float = -math.inf, most: float = math.inf
) -> tuple[Array, Array, Array]:
    """Mean and interval at each point, over the seeds that have a value there.

    Args:
        curves: ``(seeds, points)``, nan where a seed has no value.
        least: below what no value can be.
        most: above what no value can be.

    Returns:
        Mean, low and high bound, ``(points,)`` each; nan where no seed has a value, the bounds
        also where fewer than three have.
    """
    middle, low, high = (np.full(curves.shape[1], np.nan) for _ in range(3))
    present = np.isfinite(curves)
    for seeds in np.unique(present, axis=1).T:
        if seeds.any():
            points = (present == seeds[:, None]).all(axis=0)
            chosen = curves[np.ix_(seeds, points)]
            middle[points] = mean(chosen)
            low[points], high[points] = interval(chosen, least, most)
    return middle, low, high


def studies(results: Results, show: Sequence[str] = ()) -> list[Study]:
    """The benchmarks of a suite's folder, in the suite's order.

    Args:
        results: the folder that was read.
        show: metrics of networks that are shown beside `DIAGNOSTICS`, such as ``dormant_units``.

    Raises:
        UsageError: no run has such a metric.
    """
    found = [_study(results, benchmark, grid) for benchmark, grid in results.benchmarks.items()]
    known = sorted({metric for study in found for metric in study.metrics})
    for name in show:
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "these runs measured none"
            raise UsageError(f"--show {name}: unknown metric; {there}")
    for study in found:
        study.shown = tuple(dict.fromkeys((*DIAGNOSTICS, *show)))
    scores = {
        study.benchmark: {method.label: study.scores(method) for method in study.methods}
        for study in found
        if not study.preliminary
    }
    claims = compare(scores)
    for study in found:
        study.claims = claims.get(study.benchmark, Claims())
        if study.claims.comparisons:
            of = scores[study.benchmark]
            study.methods.sort(
                key=lambda method, of=of: (
                    -float(mean(of[method.label]))  # type: ignore[misc]
                    if of[method.label]
                    else math.inf
                )
            )
    return found


def shared(found: Sequence[Study]) -> list[str]:
    """The methods that all benchmarks have; none unless two methods share two benchmarks."""
    labels = [[method.label for method in study.methods if method.counted] for study in found]
    every = [label for label in labels[0] if all(label in one for one in labels)] if labels else []
    return every if len(labels) > 1 and len(every) > 1 else []


def _study(results: Results, benchmark: str, grid: Grid) -> Study:
    runs: dict[str, list[Run]] = {}
    for run in results.runs:
        if run.benchmark == benchmark:
            runs.setdefault(run.learner, []).append(run)
    entries = results.suite.get("learners")
    entries = entries if isinstance(entries, dict) else {}
    found = (run.performance for one in runs.values() for run in one)
    performance = next((one for one in found if one is not None), None)
    preliminary = not any(run.state == "finished" for one in runs.values() for run in one)

    def method(label: str, of: list[Run], remark: str = "", learner: str = "") -> Method:
        counted = [
            run
            for run in of
            if run.performance == performance
            and math.isfinite(run.online)
            and (run.state == "finished" or (preliminary and run.state != "diverged"))
        ]
        return Method(label, learner or label, of, counted, remark)

    study = Study(benchmark, performance, grid, [], {}, [], preliminary)
    sweeps: dict[str, dict[str, list[Run]]] = {}
    for learner, of_learner in runs.items():
        entry = entries.get(learner)
        entry = entry if isinstance(entry, dict) else {}
        if entry.get("scratch_of"):
            study.scratch[str(entry["scratch_of"])] = method(learner, of_learner)
        elif entry.get("sweep"):
            sweeps.setdefault(str(entry["sweep"]), {})[learner] = of_learner
        else:
            study.methods.append(method(learner, of_learner))
    for name, settings in sweeps.items():
        candidates = [method(learner, of) for learner, of in settings.items()]
        sweep, remark = _sweep(name, candidates, entries, study.sign)
        study.sweeps.append(sweep)
        kept = [run for run in settings[sweep.best] if run.seed in sweep.reported_on]
        study.methods.append(method(name, kept, remark, sweep.best))
    study.correlations = _correlations(study)
    return study


def _sweep(
    name: str, candidates: list[Method], entries: Mapping[str, Any], sign: int
) -> tuple[Sweep, str]:
    """Choose a sweep's best setting on one half of the seeds, to report it on the other."""
    seeds = sorted({run.seed for method in candidates for run in method.runs})
    half = (len(seeds) + 1) // 2
    chosen_on, reported_on = seeds[:half], seeds[half:]

    def score(method: Method) -> float:
        found = [run for run in method.runs if run.seed in chosen_on]
        values = [sign * run.online for run in found if run in method.counted]
        # A setting of which a seed diverged is chosen only where all have such seeds.
        diverged = sum(run.state == "diverged" for run in found)
        return float(np.mean(values)) - 1e12 * diverged if values else -math.inf

    best = max(candidates, key=score)
    remark = (
        f"best of {len(candidates)} settings ({best.label}), chosen on {_seeds(chosen_on)}, "
        f"reported on {_seeds(reported_on)}"
    )
    if not reported_on:
        reported_on = chosen_on
        remark = (
            f"best of {len(candidates)} settings ({best.label}), chosen and reported on the same "
            "single seed: too good by the luck of the choice"
        )
    keys, settings = _settings({method.label: entries[method.label] for method in candidates})
    estimates = {method.label: method.of(lambda run: run.online) for method in candidates}
    return Sweep(name, keys, settings, estimates, best.label, chosen_on, reported_on), remark


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def _settings(entries: Mapping[str, Any]) -> tuple[list[str], dict[str, list[Any]]]:
    """The options in which a sweep's entries differ, and each entry's values of them."""
    flat = {label: dict(_flat(entry)) for label, entry in entries.items()}
    every = list(dict.fromkeys(key for one in flat.values() for key in one))
    keys = [key for key in every if len({repr(one.get(key)) for one in flat.values()}) > 1]
    return keys, {label: [one.get(key) for key in keys] for label, one in flat.items()}


def _flat(plain: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings and lists of named choices -> dotted keys."""
    if isinstance(plain, list) and plain and all(isinstance(item, dict) for item in plain):
        plain = {str(item.get("name")): item for item in plain}
    if not isinstance(plain, dict):
        return [(prefix, plain)]
    start = f"{prefix}." if prefix else ""
    return [pair for key, value in plain.items() for pair in _flat(value, f"{start}{key}")]


def halfway(run: Run, tag: str) -> float:
    """A metric's mean over the middle fifth of a run."""
    curve = run.curves.get(tag)
    if curve is None:
        return math.nan
    reached = np.flatnonzero(np.isfinite(curve))
    if len(reached) < 3:
        return math.nan
    size = max(1, len(reached) // 5)
    start = (len(reached) - size) // 2
    return float(curve[reached[start : start + size]].mean())


def _correlations(study: Study) -> list[Correlation]:
    tags = {tag for method in study.methods for run in method.counted for tag in run.curves}
    found = []
    for tag in sorted(tag for tag in tags if tag.startswith("plasticity/")):
        if tag.endswith("/probe_examples"):
            continue
        groups = []
        for method in study.methods:
            pairs = [(halfway(run, tag), study.sign * study.last(run)) for run in method.counted]
            kept = [pair for pair in pairs if all(map(math.isfinite, pair))]
            if kept:
                groups.append(np.array(kept))
        if groups:
            value, low, high = correlation_within([(one[:, 0], one[:, 1]) for one in groups])
            runs = sum(len(one) for one in groups if len(one) >= LEAST_SEEDS)
            found.append(Correlation(tag, value, low, high, runs))
    return found
