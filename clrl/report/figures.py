"""Each figure of a report, from the study of a benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from clrl.report.aggregate import interquartile_mean, mean, performance_profile
from clrl.report.analysis import Estimate, Study, Sweep, halfway, over_seeds
from clrl.report.drawing import GREY, SIZE, Style, styles
from clrl.report.runs import is_share

Array = NDArray[np.float64]

MANY_CHANGES = 12
BAR_GROUPS = 5
_SEED_POINTS = 60


def _axes(study: Study, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(SIZE, layout="constrained")
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    return figure, list(axes)


def _scale(study: Study, tag: str = "") -> float:
    share = tag.startswith("plasticity/") and is_share(tag)
    performance = study.performance
    of_performance = performance is not None and performance.percent
    return 100.0 if share or (of_performance and not tag.startswith("plasticity/")) else 1.0


def _unit(study: Study, tag: str = "") -> str:
    assert study.performance is not None
    if tag.startswith("plasticity/"):
        metric = tag.rpartition("/")[2].replace("_", " ").replace("grad ", "gradient ")
        return f"{metric} (%)" if _scale(study, tag) == 100 else metric
    name = study.performance.name
    return f"{name} (%)" if study.performance.percent else name


def changes(study: Study) -> Array:
    """The steps at which tasks change, of the run that saw most of them."""
    found = [run.changes for method in study.methods for run in method.runs]
    return max(found, key=len, default=np.empty(0))


def _step_axis(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _line(axes: Axes, x: Array, y: Array, style: Style, **more: Any) -> None:
    kept = np.isfinite(y)
    axes.plot(x[kept], y[kept], color=style.color, dashes=style.dashes or (None, None), **more)


def _band(axes: Axes, x: Array, low: Array, high: Array, style: Style) -> None:
    kept = np.isfinite(low)
    axes.fill_between(x[kept], low[kept], high[kept], color=style.color, alpha=0.15, lw=0)


def curves(study: Study, look: dict[str, Style], tag: str) -> Figure:
    """The curves of one tag, with a band for the interval."""
    figure, (axes,) = _axes(study)
    steps, scale = study.grid.steps, _scale(study, tag)
    shown: list[Array] = []
    for method in study.methods:
        style = look[method.label]
        middle, low, high = (part * scale for part in method.curve(tag))
        if not len(middle):
            continue
        for run in method.runs:
            if tag not in run.curves:
                continue
            curve = run.curves[tag] * scale
            kept = np.flatnonzero(np.isfinite(curve))
            thin = kept[:: max(1, len(kept) // _SEED_POINTS)]
            axes.plot(steps[thin], curve[thin], color=style.color, lw=0.5, alpha=0.6, gid="seeds")
            if run.state == "diverged" and len(kept):
                end = kept[-1]
                axes.plot(steps[end], curve[end], "x", color=style.color, ms=6, mew=1.5, zorder=5)
            shown.append(np.nanquantile(curve, [0.01, 0.99]))
        _band(axes, steps, low, high, style)
        _line(axes, steps, middle, style)
        shown.append(middle)
    _limits(axes, shown, tag)
    _mark_changes(axes, changes(study))
    _step_axis(axes)
    axes.set(xlabel="steps", ylabel=_unit(study, tag), xlim=(0, steps[-1]))
    return figure


def task_curves(study: Study, look: dict[str, Style]) -> Figure:
    """Mean performance on each task, drawn where the task ends."""
    figure, (axes,) = _axes(study)
    scale, ends = _scale(study), np.append(changes(study), study.grid.steps[-1])
    shown: list[Array] = []
    for method in study.methods:
        tasks = method.tasks() * scale
        if not tasks.size:
            continue
        x = ends[: tasks.shape[1]]
        middle, low, high = (part * scale for part in over_seeds(method.tasks(), *study.limits))
        for row in tasks:
            axes.plot(x, row, color=look[method.label].color, lw=0.5, alpha=0.6, gid="seeds")
        _band(axes, x, low, high, look[method.label])
        _line(axes, x, middle, look[method.label])
        shown.append(tasks.ravel())
    _limits(axes, shown)
    _step_axis(axes)
    axes.set(xlabel="steps", ylabel=_unit(study), xlim=(0, ends[-1]))
    return figure


def _limits(axes: Axes, shown: Sequence[Array], tag: str = "") -> None:
    """Limits that show the values, logarithmic for losses and norms that span decades.

    Values are those of lines: bands of few seeds are as wide as to flatten them, and are cut off.
    """
    values = np.concatenate([*shown, np.empty(0)])
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    if tag.endswith(("loss", "norm")) and low > 0 and high / low > 50:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.2, high * 1.2)
        return
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    axes.set_ylim(low - room, high + room)


def _mark_changes(axes: Axes, changes: Array) -> None:
    """Rule the changes of task; as short marks where they are many."""
    short = len(changes) > MANY_CHANGES
    axes.vlines(
        changes,
        0,
        0.025 if short else 1,
        transform=axes.get_xaxis_transform(),
        color=GREY,
        lw=0.5 if short else 0.6,
        linestyles="solid" if short else (0, (1, 2)),
        zorder=0.5,
    )


def since_change(study: Study, look: dict[str, Style]) -> Figure:
    """Performance by steps since the change of task, early and late."""
    figure, both = _axes(study, 2)
    scale = _scale(study)
    shown: list[Array] = []
    for axes, part in zip(both, ("early", "late"), strict=True):
        for method in study.methods:
            runs = [run for run in method.counted if len(run.within)]
            if not runs:
                continue
            points = min(len(run.within) for run in runs)
            curves = np.stack([getattr(run, part)[:points] for run in runs])
            middle, low, high = (part * scale for part in over_seeds(curves, *study.limits))
            x = runs[0].within[:points]
            _band(axes, x, low, high, look[method.label])
            _line(axes, x, middle, look[method.label])
            shown.append(middle)
        axes.set_title("first fifth of tasks" if part == "early" else "last fifth", loc="left")
        axes.set_xlim(left=0)
        _step_axis(axes)
        axes.xaxis.set_major_locator(MaxNLocator(3))
    _limits(both[0], shown)
    figure.supxlabel("steps since the change", fontsize=8.5, color="#222222")
    both[0].set_ylabel(_unit(study))
    return figure


def _task_groups(tasks: int) -> list[tuple[int, int]]:
    """First and last task of each group of bars."""
    if tasks <= BAR_GROUPS + 1:
        return [(task, task) for task in range(tasks)]
    return [(int(p[0]), int(p[-1])) for p in np.array_split(np.arange(tasks), BAR_GROUPS)]


def _of_group(tasks: Array, first: int, last: int) -> list[float]:
    """Each seed's mean over some tasks, of those that it reached."""
    part = tasks[:, first : last + 1]
    return [float(np.mean(row[np.isfinite(row)])) for row in part if np.isfinite(row).any()]


def bars(study: Study, look: dict[str, Style], tasks: int) -> Figure:
    """Performance on tasks or groups of tasks, a bar a method."""
    figure, (axes,) = _axes(study)
    groups, scale = _task_groups(tasks), _scale(study)
    width = 0.84 / max(1, len(study.methods))
    for place, method in enumerate(study.methods):
        reference = study.scratch.get(method.learner)
        for group, (first, last) in enumerate(groups):
            x = group - 0.42 + (place + 0.5) * width
            values = _of_group(method.tasks(), first, last)
            found = Estimate.of(values, within=study.limits).scaled(scale)
            if not found.seeds:
                continue
            axes.bar(x, found.value, 0.88 * width, color=look[method.label].color, alpha=0.75)
            if math.isfinite(found.low):
                axes.vlines(x, found.low, found.high, color="black", lw=0.8)
            if reference is not None:
                fresh = Estimate.of(_of_group(reference.tasks(), first, last)).scaled(scale)
                axes.hlines(fresh.value, x - width / 2, x + width / 2, color="black", lw=1.8)
    names = [
        str(first + 1) if first == last else f"{first + 1}–{last + 1}" for first, last in groups
    ]
    axes.set_xticks(range(len(groups)), names)
    axes.tick_params(axis="x", length=0)
    axes.axhline(0, color="#444444", lw=0.6)
    axes.set(xlabel="task" if names[-1].isdecimal() else "tasks", ylabel=_unit(study))
    return figure


def gaps(study: Study, look: dict[str, Style]) -> Figure:
    """A fresh learner minus the continual one, by task."""
    figure, (axes,) = _axes(study)
    scale, shown = _scale(study), [np.zeros(1)]
    for method in study.methods:
        found = study.gap(method)
        if found is not None:
            middle, low, high = (part * scale for part in found)
            x = np.arange(1.0, len(middle) + 1)
            style = look[method.label]
            _band(axes, x, low, high, style)
            _line(axes, x, middle, style, marker=style.marker if len(x) <= 12 else "", ms=4)
            shown.append(middle)
    _limits(axes, shown)
    axes.axhline(0, color="#444444", lw=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set(xlabel="task", ylabel=f"fresh − continual, {_unit(study)}")
    return figure


def scores(study: Study, look: dict[str, Style]) -> Figure:
    """Average online performance: means and interquartile means."""
    figure, (axes,) = _axes(study)
    scale = _scale(study)
    for place, method in enumerate(study.methods):
        style = look[method.label]
        values = [run.online for run in method.counted]
        for statistic, shift, filled in ((mean, -0.13, True), (interquartile_mean, 0.13, False)):
            found = Estimate.of(values, statistic, study.limits).scaled(scale)
            y = place + shift
            if math.isfinite(found.low):
                axes.hlines(y, found.low, found.high, color=style.color, lw=1.4)
            axes.plot(
                found.value, y, style.marker, color=style.color, ms=5,
                mfc=style.color if filled else "white",
            )  # fmt: skip
    axes.set_yticks(range(len(study.methods)), [method.label for method in study.methods])
    axes.set_ylim(len(study.methods) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(_unit(study))
    return figure


def profile(study: Study, look: dict[str, Style]) -> Figure:
    """The share of seeds that are better than a value."""
    figure, (axes,) = _axes(study)
    scale, sign = _scale(study), study.sign
    every = [run.online for method in study.methods for run in method.counted]
    if every:
        room = 0.05 * (max(every) - min(every)) or 0.05 * abs(every[0]) or 1.0
        x = np.linspace(min(every) - room, max(every) + room, 400)
        for method in study.methods:
            values = np.array([run.online for run in method.counted])
            if len(values):
                share = performance_profile(sign * values, sign * x)
                # A run that diverged reaches nothing.
                share *= len(values) / (len(values) + method.count("diverged"))
                style = look[method.label]
                axes.plot(
                    x * scale, share * 100, color=style.color,
                    dashes=style.dashes or (None, None), drawstyle="steps-post",
                )  # fmt: skip
    axes.set(xlabel=_unit(study), ylabel="seeds (%)", ylim=(-3, 103))
    return figure


def scatter(study: Study, look: dict[str, Style], tag: str) -> Figure:
    """A metric halfway against performance at the end, a point a seed."""
    figure, (axes,) = _axes(study)
    found: list[float] = []
    for method in study.methods:
        style = look[method.label]
        x = np.array([halfway(run, tag) for run in method.counted]) * _scale(study, tag)
        y = np.array([study.last(run) for run in method.counted]) * _scale(study)
        found += list(x[np.isfinite(x)])
        axes.plot(x, y, style.marker, color=style.color, ms=5, alpha=0.8, mec="white", mew=0.5)
    if found and min(found) > 0 and max(found) / min(found) > 50:
        axes.set_xscale("log")
    axes.grid(axis="x")
    axes.set(xlabel=f"{_unit(study, tag)}, halfway", ylabel=f"{_unit(study)}, last fifth")
    return figure


def sensitivity(study: Study, sweep: Sweep) -> Figure:
    """Performance over the settings of a sweep."""
    figure, (axes,) = _axes(study)
    scale = _scale(study)
    numbers = all(
        isinstance(values[0], int | float) for values in sweep.settings.values() if values
    )
    if not sweep.keys or not numbers or len(sweep.keys) > 2:
        labels = list(sweep.settings)
        points = {"": [(float(i), label) for i, label in enumerate(labels)]}
        axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right", fontsize=7)
    else:
        points = {}
        for label, values in sweep.settings.items():
            group = f"{_short(sweep.keys[1])} {values[1]:g}" if len(values) > 1 else ""
            points.setdefault(group, []).append((float(values[0]), label))
        every = [x for group in points.values() for x, _ in group]
        if min(every) > 0 and max(every) / min(every) >= 8:
            axes.set_xscale("log")
        axes.set_xlabel(_short(sweep.keys[0]))
    for (group, places), style in zip(points.items(), styles(list(points)).values(), strict=True):
        places = sorted(places)
        found = [sweep.estimates[label] for _, label in places]
        x = np.array([place for place, _ in places])
        _line(
            axes, x, np.array([one.value for one in found]) * scale, style,
            marker=style.marker, ms=4, label=group,
        )  # fmt: skip
        axes.vlines(
            x, [one.low * scale for one in found], [one.high * scale for one in found],
            color=style.color, lw=1,
        )  # fmt: skip
        for place, label in places:
            if label == sweep.best:
                y = sweep.estimates[label].value * scale
                axes.plot(place, y, "o", ms=11, mfc="none", mec="black", mew=1)
    if len(points) > 1:
        axes.legend(fontsize=7)
    axes.set_ylabel(f"whole-run {_unit(study)}")
    return figure


def _short(key: str) -> str:
    """``optimizer.lr`` -> ``lr``; what stands before the last dot is known from the sweep."""
    return key.rpartition(".")[2]
