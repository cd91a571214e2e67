"""What TensorBoard shows beside single runs: means over seeds, their charts, the settings.

TensorBoard draws what is in event files, and aggregates nothing. So the means are written as
runs of their own, one a learner, into the folder ``.tensorboard`` of a suite's folder: made
from ``metrics.jsonl`` alone, and made anew at every call.

- Curves: for each benchmark and metric the tag ``<benchmark>/<metric>/mean``: mean over the seeds
  that got as far as the step (how many: ``<benchmark>/seeds``). Below it ``mean/low`` and
  ``mean/high``, its interval, where there are seeds enough for one all along: for margin charts,
  and left out of the time series, where each would be a card of its own.
- A layout for the custom scalars dashboard: a chart a metric with all learners in it, a margin
  chart where all of them have an interval.
- A table for the hparams dashboard: settings in which learners differ, and figures.
"""

from __future__ import annotations

import functools
import math
import os
import re
import shutil
import time
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clrl import machine
from clrl.errors import UsageError
from clrl.report.aggregate import LEAST_SEEDS, interval
from clrl.report.outcomes import average_online
from clrl.report.results import distinct
from clrl.report.runs import limits
from clrl.settings.config import flat, short_name
from clrl.storage import record

FOLDER = ".tensorboard"
"""Where the means are, in a suite's folder; no label begins with a dot."""

QUERY = urllib.parse.urlencode(
    {
        "smoothing": 0,
        "runColorGroup": r"regex:([^/]+)(?:/seed-\d+)?$",
        "tagFilter": "^(?!.*/mean/(low|high)$)",
    },
    quote_via=urllib.parse.quote,
)
"""Opens the time series with one colour a learner (means and seeds alike), not smoothed, and
without cards for the intervals of means."""

SHOWN = 40
"""Runs up to which TensorBoard shows what it has at once; of more it shows nothing until asked."""

POINTS = 250
"""Points of a curve at most. TensorBoard keeps 1,000, and other ones of each tag."""

_PERFORMANCE = ("online/accuracy", "online/return", "online/loss")

Array = NDArray[np.float64]
Columns = dict[str, tuple[Array, Array]]
"""Tag to steps and values, of one run."""


@dataclass
class Curve:
    """A metric of one learner over seeds.

    Attributes:
        steps: [points], ascending.
        mean: over the seeds that have a value there.
        low: lower bound of the interval; the mean itself where all seeds agree.
        high: upper bound.
        seeds: how many have a value there.
    """

    steps: Array
    mean: Array
    low: Array
    high: Array
    seeds: Array

    @property
    def bounded(self) -> bool:
        """Whether there are seeds enough for an interval at every point."""
        return bool(self.seeds.min() >= LEAST_SEEDS)


@dataclass
class Learner:
    """What is written of one learner.

    Attributes:
        name: its label, after the suite's folder where there are several.
        folder: where to.
        states: of its runs, on all benchmarks.
        settings: dotted key to value, as its last run has them.
        curves: benchmark and metric to curve.
        totals: benchmark and metric to the mean over seeds of whole runs' means.
    """

    name: str
    folder: Path
    states: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    curves: dict[tuple[str, str], Curve] = field(default_factory=dict)
    totals: dict[tuple[str, str], float] = field(default_factory=dict)


def crowded(folders: Sequence[Path]) -> bool:
    """Whether folders hold more runs than TensorBoard shows at first; of more it shows none."""
    files = (file for folder in folders for file in folder.rglob(record.EVENTS + "*"))
    return len({file.parent for file in files}) > SHOWN


def means(folders: Sequence[Path]) -> list[Path]:
    """The folders with what `write` wrote for these."""
    suites = (one for folder in folders for one in (folder, *sorted(folder.glob("*/"))))
    return [suite / FOLDER for suite in suites if any((suite / FOLDER).glob("*/"))]


def where(folders: Sequence[Path]) -> list[str]:
    """TensorBoard's options for what to show: a folder, or several, each under its name.

    Raises:
        UsageError: a name with a comma or a colon among several, which TensorBoard cannot tell.
    """
    if len(folders) == 1:
        return ["--logdir", str(folders[0])]
    paths = [str(folder.resolve()) for folder in folders]
    for path in paths:
        if {",", ":"} & {*path}:
            raise UsageError(f"{path}: expected a name without commas and colons")
    names = (name.replace("/", "-") for name in distinct(folders))
    return ["--logdir_spec", ",".join(map("{}:{}".format, names, paths))]


def write(*folders: Path) -> list[str]:
    """Write the means of a suite's folder, or of every suite in a folder; of several folders.

    Each event file is replaced at once: a reader finds the old one or the new one whole. What
    is left of learners that are no longer there is removed.

    Args:
        folders: suites' folders, or such with suites' folders in them. In any other nothing is
            done.

    Returns:
        Remarks for the user, a line each: runs that cannot be read.

    Raises:
        OSError: the folder cannot be written to.
    """
    suites = [
        suite
        for folder in folders
        for suite in ([folder] if record.run_folders(folder) else sorted(folder.glob("*/")))
    ]
    remarks: list[str] = []
    found = [one for suite in suites for one in _learners(suite, remarks)]
    if len({one.folder.parent for one in found}) > 1:
        for one in found:
            one.name = f"{one.folder.parent.parent.name}/{one.name}"
    _write_all(found)
    for suite in suites:
        kept = {learner.folder for learner in found}
        for old in (suite / FOLDER).glob("*/"):
            if old not in kept:
                shutil.rmtree(old, ignore_errors=True)
    return remarks


def _learners(suite: Path, remarks: list[str]) -> list[Learner]:
    """Read all runs of a suite's folder."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for run in record.run_folders(suite):
        groups.setdefault((run.parent.parent.name, run.parent.name), []).append(run)
    learners: dict[str, Learner] = {}
    for (benchmark, label), runs in sorted(groups.items()):
        learner = learners.setdefault(label, Learner(label, suite / FOLDER / label))
        columns: list[Columns] = []
        totals: dict[str, list[float]] = {}
        for run in runs:
            learner.states.append(str(record.readable_status(run).get("state")))
            learner.settings |= _settings(record.read_config(run))
            try:
                rows = record.read_metrics(run / record.METRICS)
            except ValueError as error:
                remarks.append(f"left out: {error}")
                continue
            try:
                columns.append(_columns(rows))
            except (AttributeError, KeyError, TypeError, ValueError):  # not what a run writes
                remarks.append(f"left out: {run / record.METRICS}: a line has another form")
                continue
            for tag in _PERFORMANCE:
                if tag in columns[-1]:
                    totals.setdefault(tag, []).append(average_online(*columns[-1][tag]))
        for tag in sorted({tag for own in columns for tag in own}):
            of_tag = [own[tag] for own in columns if tag in own]
            learner.curves[benchmark, tag] = over_seeds(of_tag, limits(tag))
        for tag, values in totals.items():
            learner.totals[benchmark, tag] = float(np.mean(values))
    return list(learners.values())


def _columns(rows: Sequence[Mapping[str, float | None]]) -> Columns:
    """A run's lines -> steps and values of each metric that has a chart."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        step = row["step"] or 0.0
        for tag, value in row.items():
            if value is not None and _is_charted(tag):
                steps, values = found.setdefault(tag, ([], []))
                steps.append(step)
                values.append(value)
    return {
        tag: (np.array(steps, np.float64), np.array(values, np.float64))
        for tag, (steps, values) in found.items()
    }


@functools.cache
def _is_charted(tag: str) -> bool:
    """Whether a metric has a chart: not times, positions, single layers or single tasks."""
    kind, *rest = tag.split("/")
    if kind in ("step", "time", "retention") or tag == "task/index":
        return False
    return kind != "plasticity" or (len(rest) == 2 and rest[-1] != "probe_examples")


def over_seeds(
    runs: Sequence[tuple[Array, Array]], within: tuple[float, float] = (-math.inf, math.inf)
) -> Curve:
    """Mean and interval over seeds at every step that any of them has.

    Args:
        runs: each seed's steps and values. Where one has a step twice, the later counts.
        within: below and above what no value can be.

    Returns:
        The curve. One of more than `POINTS` steps is cut into as many stretches: each seed's
        values in a stretch are averaged first, and it stands at its last step.
    """
    steps = np.unique(np.concatenate([own for own, _ in runs]))
    values = np.full((len(runs), len(steps)), np.nan)
    for row, (own, found) in zip(values, runs, strict=True):
        row[np.searchsorted(steps, own)] = found
    if len(steps) > POINTS:
        ends = np.linspace(0, len(steps), POINTS + 1).astype(int)
        starts = ends[:-1]
        there = ~np.isnan(values)
        counts = np.add.reduceat(there, starts, axis=1, dtype=np.float64)
        sums = np.add.reduceat(np.where(there, values, 0.0), starts, axis=1)
        values = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        steps = steps[ends[1:] - 1]
    there = ~np.isnan(values)
    mean, low, high = (np.empty(len(steps)) for _ in range(3))
    # Points at which the same seeds have values go together.
    patterns, which = np.unique(there, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        at = np.flatnonzero(which.reshape(-1) == number)
        block = values[np.ix_(np.flatnonzero(pattern), at)]
        mean[at] = block.mean(axis=0)
        low[at], high[at] = (
            np.where(np.isnan(bound), mean[at], bound) for bound in interval(block, *within)
        )
    return Curve(steps, mean, low, high, there.sum(axis=0).astype(float))


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings without its benchmark, as a table's cells."""
    addons = {short_name(one["name"]): one for one in config.get("addons", [])}
    learner = {key: config[key] for key in ("optimizer", "network", "agent") if key in config}
    cells: dict[str, Any] = {"addons": "+".join(addons) or "none"}
    for key, value in flat(learner).items():
        cells[key.removesuffix(".name")] = value
    for key, value in flat(addons).items():
        if not key.endswith(".name"):
            cells[key] = value
    return {key: _cell(value) for key, value in cells.items()}


def _cell(value: Any) -> bool | float | str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, bool | int | float) else str(value).lower()


def _write_all(learners: Sequence[Learner]) -> None:
    """Write every learner's event file; the first one also has the layout and the table."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import SessionEndInfo, SessionStartInfo

    keys = _compared([learner.settings for learner in learners])
    for number, learner in enumerate(learners):
        now = time.time()
        events = [Event(wall_time=now, file_version="brain.Event:2")]

        def add(found: Summary, step: int = 0, events: Any = events, now: float = now) -> None:
            events.append(Event(wall_time=now, step=step, summary=found))

        if number == 0:
            add(_layout(learners))
            experiment = api_pb2.Experiment(
                hparam_infos=_columns_of_settings(learners, keys), metric_infos=_figures(learners)
            )
            add(_of_table(metadata.EXPERIMENT_TAG, experiment=experiment))
        start = SessionStartInfo(group_name=learner.name, start_time_secs=now)
        for key in keys:
            if key in learner.settings:
                _fill(start.hparams[key], learner.settings[key])
        add(_of_table(metadata.SESSION_START_INFO_TAG, session_start_info=start))
        if "failed" in learner.states:
            end = SessionEndInfo(status=api_pb2.STATUS_FAILURE)
        elif all(state in record.DONE for state in learner.states):
            end = SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
        else:
            end = SessionEndInfo(status=api_pb2.STATUS_RUNNING)
        add(_of_table(metadata.SESSION_END_INFO_TAG, session_end_info=end))
        for step, values in _by_step(_scalars(learner)):
            add(Summary(value=[Summary.Value(tag=t, simple_value=v) for t, v in values]), step)
        _replace(learner.folder, [event.SerializeToString() for event in events])


def _of_table(tag: str, **content: Any) -> Any:
    """A summary for the hparams dashboard, which reads the metadata alone."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    about = metadata.create_summary_metadata(HParamsPluginData(**content))
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])


def _fill(cell: Any, value: bool | float | str) -> None:
    """Set a ``google.protobuf.Value``."""
    if isinstance(value, bool):
        cell.bool_value = value
    elif isinstance(value, str):
        cell.string_value = value
    else:
        cell.number_value = value


def _scalars(learner: Learner) -> Iterable[tuple[str, Array, Array]]:
    """Tag, steps and values of everything that a learner's file has."""
    counts: dict[str, Curve] = {}
    last: dict[str, float] = {}
    for (benchmark, metric), curve in learner.curves.items():
        mean = f"{benchmark}/{metric}/mean"
        yield mean, curve.steps, curve.mean
        if curve.bounded:
            yield f"{mean}/low", curve.steps, curve.low
            yield f"{mean}/high", curve.steps, curve.high
        last[benchmark] = max(last.get(benchmark, 0.0), curve.steps[-1])
        if metric in _PERFORMANCE or benchmark not in counts:
            counts[benchmark] = curve
    for benchmark, curve in counts.items():
        yield f"{benchmark}/seeds", curve.steps, curve.seeds
    for (benchmark, metric), total in learner.totals.items():
        yield _total_tag(benchmark, metric), np.array([last[benchmark]]), np.array([total])


def _by_step(
    scalars: Iterable[tuple[str, Array, Array]],
) -> Iterable[tuple[int, list[tuple[str, float]]]]:
    rows: dict[int, list[tuple[str, float]]] = {}
    for tag, steps, values in scalars:
        for step, value in zip(steps.tolist(), values.tolist(), strict=True):
            rows.setdefault(int(step), []).append((tag, value))
    return sorted(rows.items())


def _total_tag(benchmark: str, metric: str) -> str:
    return f"{benchmark}/whole-run/{metric.removeprefix('online/')}"


def _layout(learners: Sequence[Learner]) -> Any:
    """A chart for each metric, in a category for each benchmark and kind of metric."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata
    from tensorboard.util import tensor_util

    charts: dict[tuple[str, str], list[str]] = {}
    curves = dict.fromkeys(curve for learner in learners for curve in learner.curves)
    for benchmark, metric in sorted(curves, key=_order):
        charts.setdefault((benchmark, metric.partition("/")[0]), []).append(metric)
    layout = layout_pb2.Layout(version=1)
    for (benchmark, kind), metrics in charts.items():
        # A chart asks for every run's data, so only what is looked at first is open.
        category = layout.category.add(title=f"{benchmark}: {kind}", closed=kind != "online")
        for metric in reversed(metrics):  # the dashboard shows the last one first
            name, tag = metric.partition("/")[2], f"{benchmark}/{metric}/mean"
            chart = category.chart.add(title=f"{name} ({benchmark})")
            of = [
                one.curves[benchmark, metric]
                for one in learners
                if (benchmark, metric) in one.curves
            ]
            if all(curve.bounded for curve in of):
                bounds = {"lower": f"{tag}/low", "upper": f"{tag}/high"}
                chart.margin.series.add(value=tag, **bounds)
            else:
                chart.multiline.tag.append(f"^{re.escape(tag)}$")
    found = Summary()
    found.value.add(
        tag=metadata.CONFIG_SUMMARY_TAG,
        metadata=metadata.create_summary_metadata(),
        tensor=tensor_util.make_tensor_proto(layout.SerializeToString()),
    )
    return found


def _order(curve: tuple[str, str]) -> tuple[int, str, int, str]:
    """Online figures first, those of tasks next; by benchmark; performance before the rest."""
    benchmark, metric = curve
    kind = {"online": 0, "task": 1}.get(metric.partition("/")[0], 2)
    place = _PERFORMANCE.index(metric) if metric in _PERFORMANCE else len(_PERFORMANCE)
    return (kind, benchmark, place, metric)


def _compared(settings: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """The settings of which there is more than one value, and the rule's names in any case.

    Returns:
        Dotted key to whether all learners have it.
    """
    values: dict[str, list[Any]] = {}
    for one in settings:
        for key, value in one.items():
            values.setdefault(key, []).append(value)
    return {
        key: len(found) == len(settings)
        for key, found in values.items()
        if key in ("optimizer", "addons") or len(set(found)) > 1
    }


def _columns_of_settings(learners: Sequence[Learner], keys: Mapping[str, bool]) -> list[Any]:
    from tensorboard.plugins.hparams import api_pb2

    infos = []
    for key, everywhere in keys.items():
        values = [learner.settings[key] for learner in learners if key in learner.settings]
        # What is said to differ comes first in the table, which shows five columns at first.
        first = everywhere and key.startswith(("optimizer", "addons"))
        info = api_pb2.HParamInfo(name=key, type=api_pb2.DATA_TYPE_FLOAT64, differs=first)
        if all(isinstance(value, bool) for value in values):
            info.type = api_pb2.DATA_TYPE_BOOL
        elif any(isinstance(value, str | bool) for value in values):
            info.type = api_pb2.DATA_TYPE_STRING
            info.domain_discrete.extend(sorted({str(value) for value in values}))
        infos.append(info)
    return infos


def _figures(learners: Sequence[Learner]) -> list[Any]:
    """The table's columns of results: whole runs' performance, and the last of each curve."""
    from tensorboard.plugins.hparams import api_pb2

    totals = dict.fromkeys(key for learner in learners for key in learner.totals)
    curves = dict.fromkeys(key for learner in learners for key in learner.curves)
    named = [
        (_total_tag(*key), f"{key[0]}: {key[1]}, whole run") for key in sorted(totals, key=_order)
    ]
    named += [
        (f"{benchmark}/{metric}/mean", f"{benchmark}: {metric}, last")
        for benchmark, metric in sorted(curves, key=_order)
        if metric.startswith(("task/", "plasticity/"))
    ]
    return [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name)
        for tag, name in named
    ]


def _replace(folder: Path, events: Iterable[bytes]) -> None:
    """Write a run's event file in place of the one that was there."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"new-{os.getpid()}"  # no name by which TensorBoard knows event files
    with open(fresh, "wb") as file:
        records = RecordWriter(file)
        for event in events:
            records.write(event)
    machine.replace(fresh, folder / f"{record.EVENTS}clrl")
