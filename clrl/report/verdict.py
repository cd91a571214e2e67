"""What the numbers say, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clrl.report.analysis import Estimate, Method, Study
from clrl.report.results import Results
from clrl.report.runs import Run


def number(value: float, percent: bool = False, signed: bool = False) -> str:
    """A number as people write it: three digits, or one decimal of a percentage.

    Args:
        value: what to write; a dash where it is not finite.
        percent: whether it is a share, to be written in percent, without the sign.
        signed: whether to write a plus.
    """
    if not math.isfinite(value):
        return "–"
    if percent:
        text = f"{100 * value:.1f}"
    elif value == 0:
        text = "0"
    else:
        magnitude = math.floor(math.log10(abs(value)))
        text = f"{value:,.{max(0, min(2 - magnitude, 5))}f}"
    if not text.strip("-0."):
        return text.lstrip("-")  # rounded to 0
    text = f"+{text}" if signed and value > 0 else text
    return text.replace("-", "−")


def correlation(value: float) -> str:
    """A correlation as people write it: two decimals, with its sign."""
    return f"{value:+.2f}".replace("-", "−") if math.isfinite(value) else "–"


def interval(found: Estimate, percent: bool = False) -> str:
    """An interval as people write it; empty where there is none."""
    if not math.isfinite(found.low):
        return ""
    return f"[{number(found.low, percent)}, {number(found.high, percent)}]"


MOST = 4
"""Methods that a sentence names; the tables have the others."""


def listed(words: Sequence[str], most: int = MOST) -> str:
    """``a, b and c``, or ``a, b, c, d and 3 more``."""
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def _clauses(parts: Sequence[str]) -> str:
    """``a; b; and 3 more``."""
    rest = [f"and {len(parts) - MOST} more"] if len(parts) > MOST else []
    return "; ".join([*parts[:MOST], *rest])


def of_study(study: Study) -> list[str]:
    """The verdict on a benchmark, a sentence or two a finding, the most important first."""
    if study.performance is None:
        return ["Nothing was recorded yet that a comparison could be made of."]
    counted = [method for method in study.methods if method.counted]
    if not counted:
        return ["No run has come far enough for a comparison."]
    said = []
    if study.preliminary:
        said.append("Preliminary: no run is finished, so every figure goes as far as its run does.")
    said += [_best(study, counted), *_plasticity(study, counted), *_gap(study, counted)]
    said += _recovery(counted)
    said += _predictor(study)
    return said


def _what(study: Study) -> str:
    assert study.performance is not None
    return f"average online {study.performance.name}"


def _best(study: Study, counted: list[Method]) -> str:
    assert study.performance is not None
    percent = study.performance.percent
    best, *others = counted
    found = best.of(lambda run: run.online)
    figure = f"{number(found.value, percent)}{'%' if percent else ''}"
    inner = f"95% interval {interval(found, percent)}, " if interval(found) else ""
    start = (
        f"{best.label} has the {'highest' if study.sign > 0 else 'lowest'} {_what(study)}: "
        f"{figure} ({inner}{_seeds(found.seeds)})."
        if others
        else f"{best.label} has an {_what(study)} of {figure} ({inner}{_seeds(found.seeds)})."
    )
    if not others:
        return start
    beaten: list[Method] = []
    open_: list[Method] = []
    for other in others:
        chance = study.improvement(best, other)
        (beaten if math.isfinite(chance.low) and chance.low > 0.5 else open_).append(other)
    if found.seeds < 2:
        return f"{start} A single seed cannot show that it is better than others."
    if not beaten:
        return f"{start} The seeds do not show it to be better than {_labels(open_)}."
    if not open_:
        every = "every other method" if len(beaten) > 1 else _labels(beaten)
        return f"{start} The seeds show it to be better than {every}."
    return (
        f"{start} The seeds show it to be better than {_labels(beaten)}, but not than "
        f"{_labels(open_)}."
    )


def _labels(methods: Sequence[Method]) -> str:
    return listed([method.label for method in methods])


def _plasticity(study: Study, counted: list[Method]) -> list[str]:
    assert study.performance is not None
    percent, name = study.performance.percent, study.performance.name
    lost, kept = [], []
    for method in counted:
        found = method.of(study.loss_of_plasticity)
        if math.isfinite(found.low) and found.low > 0:
            first, last = method.of(study.first).value, method.of(study.last).value
            lost.append(
                f"{method.label}'s {name} goes from {number(first, percent)} in the first fifth "
                f"to {number(last, percent)} in the last (loss {number(found.value, percent)} "
                f"{interval(found, percent)})"
            )
        elif math.isfinite(found.low):
            kept.append(method)
    said = []
    if lost:
        said.append(f"Loss of plasticity: {_clauses(lost)}.")
    if kept:
        said.append(f"No loss between the first and the last fifth is shown by {_labels(kept)}.")
    return said


def _gap(study: Study, counted: list[Method]) -> list[str]:
    assert study.performance is not None
    percent = study.performance.percent
    parts, missing = [], []
    for method in counted:
        gaps = study.gaps(method)
        if gaps is None:
            missing.append(method.label)
            continue
        # Of the last fifth of the tasks, where what was lost shows.
        size = max(1, gaps.shape[1] // 5)
        found = Estimate.of([float(row[-size:].mean()) for row in gaps])
        if math.isfinite(found.value):
            parts.append(f"{method.label} {number(found.value, percent, signed=True)} "
                         f"{interval(found, percent)}".strip())  # fmt: skip
    if not parts:
        return []
    rest = f" No reference for {listed(missing)}." if missing else ""
    return [
        "Plasticity gap, fresh learner minus continual one, over the last fifth of the tasks: "
        f"{_clauses(parts)}.{rest}"
    ]


def _recovery(counted: list[Method]) -> list[str]:
    parts = []
    for method in counted:
        share, steps = method.of(lambda r: r.recovered), method.of(lambda r: r.recovery)
        if math.isfinite(share.value):
            took = f" in {number(steps.value)} steps" if math.isfinite(steps.value) else ""
            parts.append(
                f"{method.label} after {100 * share.value:.0f}% of changes{took and ','}{took}"
            )
    if not parts:
        return []
    return [
        "Recovery (back at 90% of the level before a change, before the next change comes): "
        f"{_clauses(parts)}."
    ]


def _predictor(study: Study) -> list[str]:
    """Which metric halfway goes with performance at the end."""
    assert study.performance is not None
    sure = [c for c in study.correlations if c.low > 0 or c.high < 0]
    if not sure:
        return (
            [
                "No diagnostic taken halfway through the runs is shown to go with performance at "
                "their end."
            ]
            if study.correlations
            else []
        )
    first = sure[0]
    within = (
        f"; among seeds of one method it is {correlation(first.within)}"
        if math.isfinite(first.within)
        else ""
    )
    return [
        f"The diagnostic that, halfway through a run, says most about performance at its end is "
        f"{tag_words(first.tag)}: rank correlation {correlation(first.pooled)} "
        f"[{correlation(first.low)}, {correlation(first.high)}] over {first.runs} runs{within}."
    ]


def tag_words(tag: str) -> str:
    """``plasticity/actor/dead_units`` -> ``dead units (actor)``."""
    _, network, metric = tag.split("/")
    text = metric.replace("_", " ").replace("grad ", "gradient ")
    return text if network == "network" else f"{text} ({network})"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def remarks(results: Results) -> list[str]:
    """What is missing, unfinished, diverged or damaged: a sentence each."""
    said = list(results.problems)
    for state, what in (
        ("missing", "not started"),
        ("running", "still going"),
        ("preempted", "stopped, to be resumed"),
        ("interrupted", "interrupted"),
        ("failed", "failed"),
        ("diverged", "diverged"),
        ("unknown", "in an unknown state"),
    ):
        for name, runs in _grouped([run for run in results.runs if run.state == state]).items():
            seeds = ", ".join(str(run.seed) for run in runs)
            reached = [run.step for run in runs if run.step]
            upto = f", recorded up to step {max(reached):,}" if reached else ""
            plural = "seed" if len(runs) == 1 else "seeds"
            said.append(f"{name}: {plural} {seeds} {what}{upto if state != 'missing' else ''}.")
    said += [f"{run.name}: {problem}." for run in results.runs for problem in run.problems]
    return said


def _grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(f"{run.benchmark}/{run.learner}", []).append(run)
    return grouped
