"""The report as one HTML page that needs nothing else: no network, no scripts."""

from __future__ import annotations

import functools
import importlib.resources
import math
from collections.abc import Callable
from dataclasses import dataclass

import jinja2
import yaml
from markupsafe import Markup

from clrl.report import drawing, outcomes, verdict
from clrl.report.aggregate import interquartile_mean, median
from clrl.report.analysis import Estimate, Method, Study, shared
from clrl.report.claims import Comparison
from clrl.report.panels import panels_of
from clrl.report.results import Results
from clrl.report.runs import Run, is_share, limits
from clrl.storage.provenance import PACKAGES
from clrl.version import __version__


@dataclass(frozen=True)
class Cell:
    """A figure in a table: ``text`` and its ``interval``; ``words`` may go over several lines."""

    text: str
    interval: str = ""
    words: bool = False


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    label: str
    swatch: Markup
    cells: list[Cell]
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """A table: ``heads`` of its columns after the first, ``rows``, and a ``note`` below."""

    heads: list[str]
    rows: list[Row]
    note: str = ""


def render(results: Results, studies: list[Study]) -> str:
    """The page.

    Args:
        results: the folder that was read.
        studies: its benchmarks.
    """
    look = drawing.styles(labels(results, studies))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = importlib.resources.files("clrl.report") / "page.html.jinja"
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        title=results.title,
        suite=results.suite,
        studies=[_section(study, look, index) for index, study in enumerate(studies)],
        overall=_overall(studies, look),
        remarks=verdict.remarks(results),
        provenance=provenance(results),
        settings=yaml.safe_dump(results.suite, sort_keys=False, width=100),
        runs=len(results.runs),
        over=sum(run.over for run in results.runs),
    )


def labels(results: Results, studies: list[Study]) -> list[str]:
    """Labels of all methods, in the suite's order, so that colours stay when ranks change."""
    order = {run.learner: place for place, run in reversed(list(enumerate(results.runs)))}
    methods = {method.label: order[method.learner] for s in studies for method in s.methods}
    return sorted(methods, key=lambda label: methods[label])


def _section(study: Study, look: dict[str, drawing.Style], index: int) -> dict[str, object]:
    panels = [
        {
            "title": panel.title,
            "caption": panel.caption,
            "section": panel.section,
            "svg": Markup(drawing.svg(panel, f"p{index}-{place}-")),
        }
        for place, panel in enumerate(panels_of(study, look))
    ]
    return {
        "label": study.benchmark,
        "verdict": verdict.of_study(study),
        "main": main_table(study, look),
        "detail": detail_table(study, look),
        "networks": network_table(study, look),
        "comparisons": comparison_table(study),
        "correlations": correlation_table(study),
        "panels": panels,
        "legend": [(method.label, _swatch(look[method.label])) for method in study.methods],
        "sections": [
            (title, [panel for panel in panels if panel["section"] == name])
            for name, title in (
                ("performance", "Performance"),
                ("diagnostics", "Diagnostics"),
                ("correlation", "Diagnostics against performance"),
                ("sweep", "Sensitivity"),
            )
        ],
    }


def _cell(found: Estimate, percent: bool = False) -> Cell:
    return Cell(verdict.number(found.value, percent), verdict.interval(found, percent))


def _seeds(method: Method) -> Cell:
    """How many seeds count, and what became of the others."""
    others = [
        f"{count} {what}"
        for state, what in (
            ("diverged", "diverged"),
            ("running", "going"),
            ("missing", "missing"),
            ("failed", "failed"),
            ("interrupted", "interrupted"),
            ("preempted", "stopped"),
            ("unknown", "unknown"),
        )
        if (count := method.count(state))
    ]
    return Cell(str(len(method.counted)), ", ".join(others))


def main_table(study: Study, look: dict[str, drawing.Style]) -> Table:
    """The figures that matter most, a row a method; what the seeds show, where they can."""
    if study.performance is None:
        return Table([], [])
    percent, compared = study.performance.percent, bool(study.claims.comparisons)
    unit = f"{study.performance.name}{', %' if percent else ''}"
    rows = []
    for method in study.methods:
        cells = [
            _seeds(method),
            _cell(method.of(lambda run: run.online, within=study.limits), percent),
            _cell(method.of(study.first, within=study.limits), percent),
            _cell(method.of(study.last, within=study.limits), percent),
            _cell(method.of(study.loss_of_plasticity), percent),
        ]
        if compared:
            beaten = verdict.listed(study.claims.beaten(method.label))
            cells.append(Cell(beaten or "–", words=bool(beaten)))
        rows.append(Row(method.label, _swatch(look[method.label]), cells, method.remark))
    note = (
        "Means over seeds, and an interval where there are three or more. Loss of plasticity is "
        "the first fifth minus the last, positive where it got worse."
    )
    heads = ["seeds", f"{unit}, whole run", "first fifth", "last fifth", "loss of plasticity"]
    if not compared:
        return Table(heads, rows, f"{note} Rows are in the suite's order: nothing is compared.")
    among = f"with {study.claims.against}" if study.claims.against else "of all pairs"
    return Table(
        [*heads, "shown better than"],
        rows,
        f"{note} Shown better than: by an exact rank test {among}, corrected for the "
        f"{study.claims.made} comparisons of this report; the order of rows is that of the means "
        "and shows nothing by itself.",
    )


def detail_table(study: Study, look: dict[str, drawing.Style]) -> Table:
    """Further figures."""
    if study.performance is None:
        return Table([], [])
    percent = study.performance.percent
    rows = []
    for method in study.methods:
        back = study.recovery(method)
        shares = Estimate.of([one.share for one in back], within=(0.0, 1.0))
        rows.append(
            Row(
                method.label,
                _swatch(look[method.label]),
                [
                    _cell(method.of(lambda run: run.online, median), percent),
                    _cell(method.of(lambda run: run.online, interquartile_mean), percent),
                    _cell(method.of(lambda run: outcomes.area_under_curve(run.tasks)), percent),
                    _cell(shares, percent=True),
                    Cell(verdict.number(min((one.share for one in back), default=math.nan), True)),
                    _cell(Estimate.of([one.steps for one in back], within=(0.0, math.inf))),
                ],
            )
        )
    return Table(
        ["median", "interquartile mean", "area under task curve", "recovered, %",
         "in the worst seed", "steps to recover"],
        rows,
        "Median and interquartile mean are of the whole run. Recovery: from a window after a "
        "change to the end of the task, performance is on average at 90% of the best level so far "
        "that the method's seeds had on average before a change; windows of a task's last third "
        "are too late. The resolution is one logging window.",
    )  # fmt: skip


def network_table(study: Study, look: dict[str, drawing.Style]) -> Table:
    """What every network was like at the end of its runs, each under its name."""
    columns: list[tuple[str, str, Callable[[Run], float]]] = []
    for network in study.networks:
        for metric in study.shown:
            tag = f"plasticity/{network}/{metric}"
            columns.append((verdict.tag_words(tag), tag, functools.partial(_end, tag)))
            if metric == "dead_units":
                worst = f"worst layer's {verdict.tag_words(tag)}"
                columns.append((worst, tag, functools.partial(_worst_layer, tag)))
    columns = [
        (head, tag, figure)
        for head, tag, figure in columns
        if any(math.isfinite(figure(run)) for method in study.methods for run in method.counted)
    ]
    rows = [
        Row(
            method.label,
            _swatch(look[method.label]),
            [
                _cell(method.of(figure, within=limits(tag)), is_share(tag))
                for _, tag, figure in columns
            ],
        )
        for method in study.methods
    ]
    heads = [head + (", %" if is_share(tag) else "") for head, tag, _ in columns]
    return Table(
        heads,
        rows if heads else [],
        "The last value of each run, mean over seeds; over the hidden layers of a network, but for "
        "dead units also of the layer that has most of them.",
    )


def _end(tag: str, run: Run) -> float:
    return run.ends.get(tag, math.nan)


def _worst_layer(tag: str, run: Run) -> float:
    return max((run.ends[one] for one in run.ends if one.startswith(f"{tag}/")), default=math.nan)


def comparison_table(study: Study) -> Table:
    """Every comparison that was made."""
    rows = [
        Row(
            f"{one.better} against {one.than}",
            Markup(""),
            [Cell(f"{one.probability:.2f}"), Cell(_p(one.p)), Cell(_p(one.adjusted)), _shown(one)],
        )
        for one in study.claims.comparisons
    ]
    return Table(
        ["P(better)", "p", "p, corrected", "shown"],
        rows,
        "P(better): chance that a seed of the first does better than one of the second. p: exact "
        "rank test (Mann-Whitney), two-sided; corrected by Holm's method for the "
        f"{study.claims.made} comparisons of this report, and shown where that is at most 0.05.",
    )


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _shown(one: Comparison) -> Cell:
    return Cell("yes" if one.shown else "no")


def correlation_table(study: Study) -> Table:
    """Every metric against performance."""
    rows = [
        Row(
            verdict.tag_words(one.tag),
            Markup(""),
            [
                Cell(verdict.correlation(one.value), verdict.correlation_interval(one)),
                Cell(str(one.runs)),
            ],
        )
        for one in study.correlations
    ]
    return Table(
        ["within methods", "runs"],
        rows,
        "Spearman's rank correlation between the metric halfway through a run and performance in "
        "its last fifth, over the seeds of each method, mean over methods; positive where higher "
        "values go with better performance. Its interval is over seeds, from four on. Of so many "
        "metrics some correlate by chance: nothing is claimed of any.",
    )


def _overall(studies: list[Study], look: dict[str, drawing.Style]) -> Table | None:
    """The methods that all benchmarks have, beside each other."""
    labels = shared(studies)
    if not labels:
        return None
    compared = any(study.claims.comparisons for study in studies)
    rows = []
    for label in labels:
        of = [next(m for m in study.methods if m.label == label) for study in studies]
        cells = [
            _cell(
                method.of(lambda run: run.online, within=study.limits),
                study.performance is not None and study.performance.percent,
            )
            for method, study in zip(of, studies, strict=True)
        ]
        if compared:
            made = [one for study in studies for one in study.claims.comparisons]
            wins = sum(one.shown and one.better == label for one in made)
            losses = sum(one.shown and one.than == label for one in made)
            every = sum(label in (one.better, one.than) for one in made)
            cells.append(Cell(f"{wins} / {losses} / {every - wins - losses}"))
        rows.append(Row(label, _swatch(look[label]), cells))
    note = "Mean over the whole run, and its interval, of the methods that all benchmarks have."
    heads = [study.benchmark for study in studies]
    if compared:
        heads.append("shown better / worse / neither")
        note += " Counts are of the comparisons in the sections below, all benchmarks together."
    return Table(heads, rows, note)


def _swatch(style: drawing.Style) -> Markup:
    dashes = " ".join(f"{1.5 * part:g}" for part in style.dashes)
    return Markup(
        '<svg class="swatch" viewBox="0 0 26 8" aria-hidden="true"><line x1="0" y1="4" x2="26" '
        'y2="4" stroke="{}" stroke-width="2" stroke-dasharray="{}"/></svg>'
    ).format(style.color, dashes)


def provenance(results: Results) -> list[tuple[str, str]]:
    """Where the numbers come from: (what, value)."""
    runs = [run for run in results.runs if run.status]
    made_with = [dict(run.status.get("provenance") or {}) for run in runs]

    def values(*names: str) -> list[str]:
        found = {
            f"{name} {one[name]}" if name in PACKAGES else str(one[name])
            for one in made_with
            for name in names
            if one.get(name) is not None
        }
        return sorted(found)

    times = sorted(str(run.status.get("time", "")) for run in runs)
    hashes = {str(run.status.get("config_hash", ""))[:12] for run in runs}
    seeds = sorted({run.seed for run in results.runs})
    return [
        ("Folder", ", ".join(map(str, (results.folder, *results.beside)))),
        ("Runs", f"{len(results.runs)}, of which {sum(r.over for r in results.runs)} are over"),
        ("Seeds", ", ".join(map(str, seeds))),
        ("Made with", ", ".join([*values(*PACKAGES), *(f"Python {v}" for v in values("python"))])),
        ("Commit", ", ".join(values("commit"))),
        ("Device", ", ".join(values("device"))),
        ("Threads of a process", ", ".join(values("threads"))),
        ("Processor", ", ".join(values("processor"))),
        ("Machine", ", ".join(values("machine"))),
        ("Members computed", ", ".join(values("members"))),
        ("Last change of a run", times[-1] if times else ""),
        ("Configurations", f"{len(hashes)} (SHA-256: {', '.join(sorted(hashes)[:8])}"
         f"{', …' if len(hashes) > 8 else ''})"),
        ("Report by", f"clrl {__version__}"),
    ]  # fmt: skip
