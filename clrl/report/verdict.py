"""What the numbers say, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clrl.report import claims
from clrl.report.analysis import Correlation, Estimate, Method, Study
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
    """An interval as people write it; empty where there is none, or rounding makes it a point."""
    if not math.isfinite(found.low):
        return ""
    low, high = number(found.low, percent), number(found.high, percent)
    return f"[{low}, {high}]" if low != high else ""


MOST, MANY = 4, 8
"""Methods that a list or a sentence of figures names; the tables have the others."""

OFTEN = 0.9
"""The share of changes after which a seed must be back to count as one that recovers."""


def listed(words: Sequence[str], most: int = MOST) -> str:
    """``a, b and c``, or ``a, b, c, d and 3 more``."""
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def _clauses(parts: Sequence[str], most: int = MANY) -> str:
    """``a; b; and 3 more``."""
    rest = [f"and {len(parts) - most} more"] if len(parts) > most else []
    return "; ".join([*parts[:most], *rest])


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
    said += [_means(study, counted), *comparisons(study), *_plasticity(study, counted)]
    return said + [*_gap(study, counted), *_recovery(study, counted), *_diagnostics(study)]


def _means(study: Study, counted: list[Method]) -> str:
    """What every method reached, without comparing them."""
    assert study.performance is not None
    percent = study.performance.percent
    found = [method.of(lambda run: run.online, within=study.limits) for method in counted]
    alike = len({one.seeds for one in found}) == 1
    parts = []
    for method, one in zip(counted, found, strict=True):
        figure = f"{number(one.value, percent)}{'%' if percent else ''}"
        seeds = "" if alike else f"({seeds_words(one.seeds)})"
        parts.append(" ".join(filter(None, [method.label, figure, interval(one, percent), seeds])))
    whole = f" ({seeds_words(found[0].seeds)}{' a method' if len(found) > 1 else ''})"
    name = f"Mean {study.performance.name} over the whole run{whole if alike else ''}"
    return f"{name}: {_clauses(parts)}."


def comparisons(study: Study) -> list[str]:
    """What the seeds show of one method against another, or why they can show nothing."""
    sizes = [len(scores) for method in study.methods if (scores := study.scores(method))]
    if len(sizes) < 2 or study.preliminary:
        return []
    made = study.claims.comparisons
    if not made:
        return [_cannot(min(sizes), max(sizes), study.claims.fewest)]
    test = f"(exact rank test, corrected for {_count(study.claims.made, 'comparison')})"
    against = study.claims.against
    said = []
    if against is not None:
        said.append(
            f"{seeds_words(max(sizes)).capitalize()} a method cannot tell all pairs of these "
            f"methods apart, so that each is compared with {against} alone, the suite's first."
        )
        better = [one.better for one in made if one.shown and one.than == against]
        worse = [one.than for one in made if one.shown and one.better == against]
        parts = [f"{listed(better, MANY)} better than {against}"] if better else []
        parts += [f"{listed(worse, MANY)} worse than {against}"] if worse else []
        open_ = [one for one in made if not one.shown]
        if parts and open_:
            rest = listed([_other(one, against) for one in open_], MANY)
            parts.append(f"nothing of {rest}")
        shown = "; ".join(parts)
    else:
        wins = [(m.label, study.claims.beaten(m.label)) for m in study.methods]
        shown = _clauses([f"{label} better than {listed(of)}" for label, of in wins if of])
        left = sum(not one.shown for one in made)
        if shown and left:
            shown += f"; nothing of the other {_count(left, 'pair')}"
    if shown:
        said.append(f"The seeds show {shown} {test}.")
    elif len(made) == 1:
        said.append(f"The seeds do not show either to be better than the other {test}.")
    else:
        said.append(f"The seeds do not show any of them to be better than another {test}.")
    return [" ".join(said)]


def _other(one: claims.Comparison, label: str) -> str:
    return one.than if one.better == label else one.better


def _cannot(fewest: int, most: int, comparisons: int) -> str:
    """Why nothing is compared."""
    several = f"{fewest} to {seeds_words(most)}" if fewest < most else seeds_words(most)
    alone = claims.least_p(most, most)
    if alone > claims.LEVEL:
        why = (
            "even if every seed of one did better than all of another, chance alone would do as "
            f"much in {100 * alone:.0f}% of cases"
        )
    else:
        why = "corrected for the comparisons to be made, no outcome would be beyond chance"
    needed = claims.enough(max(comparisons, 1))
    return (
        f"{several} a method cannot show that one method is better than another: {why}. Nothing is "
        f"compared; with {needed} seeds a method, each could be compared with the suite's first."
    )


def _plasticity(study: Study, counted: list[Method]) -> list[str]:
    assert study.performance is not None
    percent, name = study.performance.percent, study.performance.name
    verb = "fell" if study.sign > 0 else "rose"
    parts = []
    for method in counted:
        values = [v for run in method.counted if math.isfinite(v := study.loss_of_plasticity(run))]
        if values:
            first, last = method.of(study.first).value, method.of(study.last).value
            parts.append(
                f"{method.label} {number(first, percent)} to {number(last, percent)}, {verb} in "
                f"{_of_seeds(sum(value > 0 for value in values), len(values))}"
            )
    if not parts:
        return []
    return [f"Loss of plasticity, {name} in the first fifth against the last: {_clauses(parts)}."]


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
        values = [float(row[-size:].mean()) for row in gaps]
        found = Estimate.of(values)
        if math.isfinite(found.value):
            figure = number(found.value, percent, signed=True)
            above = _of_seeds(sum(value > 0 for value in values), found.seeds)
            parts.append(f"{method.label} {figure} {interval(found, percent)}".strip()
                         + f", above 0 in {above}")  # fmt: skip
    if not parts:
        return []
    rest = f" No reference for {listed(missing)}." if missing else ""
    return [
        "Plasticity gap, fresh learner minus continual one, over the last fifth of the tasks: "
        f"{_clauses(parts)}.{rest}"
    ]


def _recovery(study: Study, counted: list[Method]) -> list[str]:
    parts = []
    for method in counted:
        found = study.recovery(method)
        if found:
            many = sum(one.share >= OFTEN for one in found)
            worst = min(one.share for one in found)
            rest = f" (the worst after {100 * worst:.0f}%)" if many < len(found) else ""
            parts.append(f"{method.label} in {_of_seeds(many, len(found))}{rest}")
    if not parts:
        return []
    return [
        "Recovery (back for the rest of a task at 90% of the best level so far that the method's "
        f"seeds had on average before a change) after at least {100 * OFTEN:.0f}% of changes: "
        f"{_clauses(parts)}."
    ]


def _diagnostics(study: Study) -> list[str]:
    """How metrics halfway go with performance at the end: all that have figures, none picked."""
    shown = [
        f"{tag_words(one.tag)} {correlation(one.value)}{' ' if math.isfinite(one.low) else ''}"
        f"{correlation_interval(one)}"
        for one in study.correlations
        if one.tag.rpartition("/")[2] in study.shown and math.isfinite(one.value)
    ]
    if not shown:
        return []
    return [
        "Diagnostics halfway through a run against performance in its last fifth, rank "
        f"correlation over the seeds within each method: {'; '.join(shown)}."
    ]


def tag_words(tag: str) -> str:
    """``plasticity/actor/dead_units`` -> ``dead units (actor)``."""
    _, network, metric = tag.split("/")
    text = metric.replace("_", " ").replace("grad ", "gradient ")
    return text if network == "network" else f"{text} ({network})"


def correlation_interval(one: Correlation) -> str:
    """A correlation's interval as people write it; empty where there is none."""
    if not math.isfinite(one.low):
        return ""
    return f"[{correlation(one.low)}, {correlation(one.high)}]"


def seeds_words(count: int) -> str:
    """``1 seed``, ``5 seeds``."""
    return _count(count, "seed")


def _of_seeds(some: int, count: int) -> str:
    """``4 of 5 seeds``."""
    return f"{some} of {seeds_words(count)}"


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


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
