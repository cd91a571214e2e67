"""Which figures a benchmark has, and what is said of each."""

from __future__ import annotations

import math
from collections.abc import Iterator

from clrl.report import figures
from clrl.report.analysis import Study
from clrl.report.drawing import Panel, Style


def panels_of(study: Study, look: dict[str, Style]) -> list[Panel]:
    """All figures of a benchmark, in the order in which they are shown.

    Args:
        study: the benchmark.
        look: label of a method to its style.
    """
    return list(_panels(study, look)) if study.performance else []


def _panels(study: Study, look: dict[str, Style]) -> Iterator[Panel]:
    performance = study.performance
    assert performance is not None
    name, changes = performance.name, figures.changes(study)
    fine = any(len(run.within) for method in study.methods for run in method.counted)
    tasks = max((method.tasks().shape[1] for method in study.methods), default=0)
    if fine and tasks > figures.MANY_CHANGES:
        yield Panel(
            "task-curves",
            f"{name.capitalize()} on each task",
            "Mean over each task, drawn where the task ends; mean over seeds and interval.",
            lambda: figures.task_curves(study, look),
            "performance",
            seeds=True,
        )
    marks = "; vertical marks where the task changes" if len(changes) else ""
    yield Panel(
        "curves",
        f"Online {name}",
        f"Mean over seeds and interval{marks}. A cross ends a run that diverged.",
        lambda: figures.curves(study, look, performance.online),
        "performance",
        seeds=True,
    )
    if fine:
        yield Panel(
            "since-change",
            f"{name.capitalize()} since the change of task",
            "All changes laid over each other: mean over the first fifth of the tasks, and over "
            "the last fifth. What was lost is the drop from left to right.",
            lambda: figures.since_change(study, look),
            "performance",
        )
    if tasks > 1:
        fresh = " The black line over a bar is a fresh learner." if study.scratch else ""
        yield Panel(
            "tasks",
            f"{name.capitalize()} on each {'task' if tasks <= figures.BAR_GROUPS + 1 else 'part'}",
            f"Mean over the tasks named below and interval over seeds, methods in the order "
            f"of the table.{fresh}",
            lambda: figures.bars(study, look, tasks),
            "performance",
        )
    if any(study.gap(method) is not None for method in study.methods):
        yield Panel(
            "gap",
            "Plasticity gap",
            f"{name.capitalize()} of a fresh learner trained on each task alone minus that of the "
            "continual one, same seed and task: above 0, plasticity was lost.",
            lambda: figures.gaps(study, look),
            "performance",
        )
    yield Panel(
        "scores",
        f"{name.capitalize()} over the whole run",
        "Mean over the whole run (filled), interquartile mean (hollow); intervals of the mean.",
        lambda: figures.scores(study, look),
        "performance",
    )
    yield Panel(
        "profile",
        "Performance profile",
        f"Share of seeds whose {name} over the whole run is better than the value below.",
        lambda: figures.profile(study, look),
        "performance",
    )
    for network in study.networks:
        for metric in study.shown:
            tag = f"plasticity/{network}/{metric}"
            if any(tag in run.curves for method in study.methods for run in method.runs):
                yield Panel(
                    f"{network}-{metric}",
                    _words(metric, network, study),
                    "Mean over hidden layers or over the network, seeds and interval.",
                    lambda tag=tag: figures.curves(study, look, tag),  # type: ignore[misc]
                    "diagnostics",
                    seeds=True,
                )
    for metric in study.shown:
        for network in study.networks:
            tag = f"plasticity/{network}/{metric}"
            if any(one.tag == tag and math.isfinite(one.value) for one in study.correlations):
                yield Panel(
                    f"{network}-{metric}-at-end",
                    f"{_words(metric, network, study)} and {name}",
                    "A point a seed: the metric halfway through the run, performance at its end.",
                    lambda tag=tag: figures.scatter(study, look, tag),  # type: ignore[misc]
                    "correlation",
                )
    for sweep in study.sweeps:
        yield Panel(
            f"sweep-{sweep.name}",
            f"{sweep.name}: sensitivity",
            "All settings over all seeds, with intervals; the chosen one ringed.",
            lambda sweep=sweep: figures.sensitivity(study, sweep),  # type: ignore[misc]
            "sweep",
        )


def _words(metric: str, network: str, study: Study) -> str:
    text = metric.replace("_", " ").replace("grad ", "gradient ").capitalize()
    return text if len(study.networks) == 1 else f"{text}, {network}"
