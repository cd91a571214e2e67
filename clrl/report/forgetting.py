"""The picture of forgetting: every task after every task, and plasticity against stability.

What is drawn comes from the tags ``retention/accuracy/<task>`` (``retention/return/<task>`` of
control tasks). The functions that compute are pure; those that draw return Matplotlib's figures
and load it only then.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from clrl.metrics.continual import learning_accuracy, retained_accuracy
from clrl.report.aggregate import interval, mean
from clrl.report.runs import limits
from clrl.storage import record

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

Array = NDArray[np.float64]
Row = Mapping[str, float | None]

LOWER, UPPER = "#c0392b", "#000000"
"""Colours of the two lines that frame the picture."""
_COLUMNS = 4


@dataclass(frozen=True)
class Arm:
    """A learner's matrices; see `clrl.metrics.continual`.

    Attributes:
        label: what it is called.
        matrices: ``A[seed, k, i]``, performance on task i after task k; finished seeds only.
        what: what performance is.
        role: ``lower`` for fine-tuning, ``upper`` for retraining from scratch.
    """

    label: str
    matrices: Array
    what: Literal["accuracy", "return"]
    role: Literal["lower", "upper", ""] = ""


def matrix_of(rows: Sequence[Row], what: str = "accuracy") -> Array | None:
    """One run's matrix, [tasks, tasks], from the lines of its ``metrics.jsonl``.

    Tasks that come again after the last are left out; later tasks that a row does not have are
    nan. None where a task was not tested after it was learned, as in runs that have no tests or
    ended early.

    Args:
        rows: the run's lines.
        what: ``accuracy`` or ``return``.
    """
    prefix = f"retention/{what}/"
    tested = [row for row in rows if f"{prefix}0" in row]
    tasks = sum(key.startswith(prefix) for key in tested[-1]) if tested else 0
    if not tasks or len(tested) < tasks:
        return None
    values = [[row.get(f"{prefix}{i}") for i in range(tasks)] for row in tested[:tasks]]
    matrix = np.array(values, np.float64)  # None becomes nan
    return matrix if np.isfinite(matrix[np.tril_indices(tasks)]).all() else None


def arms(folder: Path) -> dict[str, list[Arm]]:
    """Each benchmark's arms, by its label, from a suite's folder; only where there are any.

    Args:
        folder: the suite's folder. A seed that diverged or is not over is left out.
    """
    found: dict[str, list[Arm]] = {}
    runs = [path for path in record.run_folders(folder) if _finished(path)]
    for learner, of_learner in itertools.groupby(runs, lambda path: path.parent):
        folders = list(of_learner)
        metrics = [record.read_metrics(path / record.METRICS) for path in folders]
        for what in ("accuracy", "return"):
            matrices = [matrix for rows in metrics if (matrix := matrix_of(rows, what)) is not None]
            if matrices and len({matrix.shape for matrix in matrices}) == 1:
                arm = Arm(learner.name, np.stack(matrices), what, _role(folders[0]))
                found.setdefault(learner.parent.name, []).append(arm)
    return found


def _finished(folder: Path) -> bool:
    return record.read_status(folder).get("state") == "finished"


def _role(folder: Path) -> Literal["lower", "upper", ""]:
    config = record.read_config(folder)
    methods = config.get("consolidation") or []
    if not methods:
        return "" if config.get("addons") else "lower"
    return "upper" if any(one.get("name") == "from-scratch" for one in methods) else ""


def after_each(arm: Arm) -> tuple[Array, Array, Array]:
    """Performance on every task after every task, over seeds.

    Returns:
        Mean, and low and high bound of its interval, [tasks, tasks] each; nan where a task was not
        tested, and the bounds where there are fewer than three seeds.
    """
    tested = np.isfinite(arm.matrices).all(axis=0)
    found = np.full((3, *tested.shape), np.nan)
    values = arm.matrices[:, tested]
    found[:, tested] = mean(values), *interval(values, *limits(arm.what))
    return found[0], found[1], found[2]


@dataclass(frozen=True)
class Point:
    """Where an arm lies between plasticity and stability: means over seeds, with intervals.

    Attributes:
        label: of the arm.
        plasticity: mean performance on each task but the first, right after it.
        stability: mean performance on the earlier tasks, after the last.
        plasticity_interval: low and high bound; nan with fewer than three seeds.
        stability_interval: the same.
    """

    label: str
    plasticity: float
    stability: float
    plasticity_interval: tuple[float, float]
    stability_interval: tuple[float, float]


def plane(found: Sequence[Arm]) -> list[Point]:
    """The arms' places in the plane; arms with a single task have none.

    Plasticity leaves out the first task, of which every learner is new.
    """
    points = []
    for arm in found:
        if arm.matrices.shape[-1] < 2:
            continue
        new = learning_accuracy(arm.matrices[:, 1:, 1:])
        old = retained_accuracy(arm.matrices)
        within = limits(arm.what)
        bounds = [tuple(map(float, interval(values, *within))) for values in (new, old)]
        points.append(Point(arm.label, float(mean(new)), float(mean(old)), *bounds))  # type: ignore[arg-type]
    return points


def draw_tasks(into: Figure | SubFigure, found: Sequence[Arm]) -> None:
    """A panel an arm: performance on every task after every task, between the two lines.

    Args:
        into: what is drawn into.
        found: arms of one benchmark; those that frame the picture are drawn in every panel.
    """
    lines = [(arm, after_each(arm)) for arm in found]
    frame = [(arm, values) for arm, values in lines if arm.role]
    inner = [(arm, values) for arm, values in lines if not arm.role] or lines
    columns = min(_COLUMNS, len(inner))
    rows = -(-len(inner) // columns)
    axes = into.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    colours = _shades(len(lines[0][1][0]))
    for place, axis in enumerate(axes.flat):
        if place >= len(inner):
            axis.set_visible(False)
            continue
        arm, (middle, low, high) = inner[place]
        tasks = np.arange(len(middle))
        for after, colour in enumerate(colours):
            axis.plot(tasks, middle[after], color=colour, linewidth=1)
            axis.plot(after, middle[after, after], "o", color=colour, markersize=3)
        if np.isfinite(low[-1]).any():
            axis.fill_between(tasks, low[-1], high[-1], color=colours[-1], alpha=0.25, linewidth=0)
        axis.plot(tasks, middle[-1], color=colours[-1], linewidth=2)
        for other, (of_other, _, _) in frame:
            if other.label != arm.label:
                colour = LOWER if other.role == "lower" else UPPER
                axis.plot(tasks, of_other[-1], color=colour, linestyle="--", linewidth=1.2)
        axis.set_title(arm.label, fontsize="small")
        if place + columns >= len(inner):
            axis.set_xlabel("task")
            axis.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel(found[0].what)
    texts = [
        f"{arm.label} after the last task ({'red' if arm.role == 'lower' else 'black'}, dashed)"
        for arm, _ in frame
    ]
    legend = "light to dark: after each task in turn, the dot is the task just learned"
    into.suptitle("; ".join([legend, *texts]), fontsize="small")


def draw_plane(into: Figure | SubFigure, found: Sequence[Arm]) -> None:
    """Plasticity against stability, a point an arm with its intervals.

    Args:
        into: what is drawn into.
        found: arms of one benchmark.
    """
    axis = into.subplots()
    roles = {arm.label: arm.role for arm in found}
    for number, point in enumerate(plane(found)):
        role = roles[point.label]
        colour = {"lower": LOWER, "upper": UPPER}.get(role, f"C{number % 10}")
        marker = "s" if role else "o^Dv"[number // 10 % 4]
        axis.errorbar(
            point.plasticity,
            point.stability,
            xerr=_reach(point.plasticity, point.plasticity_interval),
            yerr=_reach(point.stability, point.stability_interval),
            fmt=marker,
            color=colour,
            label=point.label,
            markersize=5,
            linewidth=1,
        )
        axis.annotate(
            point.label,
            (point.plasticity, point.stability),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize="x-small",
            color=colour,
        )
    what = found[0].what
    axis.margins(x=0.15)
    axis.set_xlabel(f"plasticity: {what} on each new task, right after it")
    axis.set_ylabel(f"stability: {what} on the earlier tasks, after the last")


def picture(title: str, found: Sequence[Arm]) -> Figure:
    """Both drawings in one figure.

    Args:
        title: what to write above.
        found: arms of one benchmark, at least one.
    """
    from matplotlib.figure import Figure

    panels = max(1, sum(not arm.role for arm in found))
    height = max(5.0, 1.9 * -(-panels // _COLUMNS) + 1.0)
    whole = Figure(figsize=(16.0, height), layout="constrained")
    whole.suptitle(title)
    parts: Any = whole.subfigures(1, 2, width_ratios=[1.6, 1.0])
    draw_tasks(parts[0], found)
    draw_plane(parts[1], found)
    return whole


def write_pictures(folder: Path) -> list[Path]:
    """Write ``forgetting-<benchmark>.png`` into a suite's folder, for each benchmark with tests.

    Args:
        folder: the suite's folder.

    Returns:
        What was written.
    """
    written = []
    for benchmark, found in arms(folder).items():
        if min(arm.matrices.shape[-1] for arm in found) < 2:
            continue
        path = folder / f"forgetting-{benchmark}.png"
        picture(f"{folder.name}: {benchmark}", found).savefig(path, dpi=110)
        written.append(path)
    return written


def _reach(value: float, interval: tuple[float, float]) -> Array | None:
    """How far an interval reaches to either side, as Matplotlib takes it."""
    low, high = interval
    if math.isnan(low):
        return None
    return np.maximum([[value - low], [high - value]], 0.0)


def _shades(count: int) -> list[Any]:
    from matplotlib import colormaps

    shades = colormaps["Blues"](np.linspace(0.3, 1.0, count))
    return [tuple(shade) for shade in shades]
