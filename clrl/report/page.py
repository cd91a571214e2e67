"""The report as one HTML page that needs nothing else: no network, no scripts."""

from __future__ import annotations

import importlib.resources
import math
from dataclasses import dataclass

import jinja2
import yaml
from markupsafe import Markup

from clrl.report import drawing, verdict
from clrl.report.aggregate import Ranking, interquartile_mean, median
from clrl.report.analysis import Estimate, Method, Study, overall
from clrl.report.panels import panels_of
from clrl.report.results import Results
from clrl.version import __version__


@dataclass(frozen=True)
class Cell:
    """A figure in a table: ``text`` and its ``interval``."""

    text: str
    interval: str = ""


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
        title=results.folder.resolve().name,
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
        "tables": [main_table(study, look), detail_table(study, look)],
        "correlations": correlation_table(study),
        "panels": panels,
        "legend": [(method.label, _swatch(look[method.label])) for method in study.methods],
        "sections": [
            (title, [panel for panel in panels if panel["section"] == name])
            for name, title in (
                ("performance", "Performance"),
                ("diagnostics", "Diagnostics"),
                ("correlation", "Which diagnostic predicts the loss?"),
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
    """The ranking: a row a method, best first."""
    if study.performance is None:
        return Table([], [])
    percent = study.performance.percent
    unit = f"{study.performance.name}{', %' if percent else ''}"
    rows = []
    for place, method in enumerate(study.methods):
        ranking = study.ranking
        ranked = ranking is not None and place < len(ranking.rank)
        rows.append(
            Row(
                method.label,
                _swatch(look[method.label]),
                [
                    _seeds(method),
                    _cell(method.of(lambda run: run.online), percent),
                    _cell(method.of(lambda run: run.online, interquartile_mean), percent),
                    _cell(method.of(study.last), percent),
                    _cell(method.of(study.loss_of_plasticity), percent),
                    _place(ranking, place) if ranked and ranking else Cell("–"),
                    Cell(f"{100 * ranking.best[place]:.0f}%" if ranked and ranking else "–"),
                ],
                method.remark,
            )
        )
    return Table(
        ["seeds", f"online {unit}", "interquartile mean", "last fifth", "loss of plasticity",
         "place", "ranks first"],
        rows,
        "Mean over seeds with 95% interval. Loss of plasticity is the first fifth minus the last, "
        "positive where it got worse. Place: by mean performance; its interval, and how often a "
        "method ranks first, over draws of the seeds.",
    )  # fmt: skip


def _place(ranking: Ranking, place: int) -> Cell:
    def short(value: float) -> str:
        return f"{value:.1f}".removesuffix(".0")

    return Cell(
        short(ranking.rank[place]), f"[{short(ranking.low[place])}, {short(ranking.high[place])}]"
    )


def detail_table(study: Study, look: dict[str, drawing.Style]) -> Table:
    """Further figures, and the best method against each other one."""
    if study.performance is None:
        return Table([], [])
    from clrl.report import outcomes

    percent = study.performance.percent
    best = study.methods[0]
    rows = [
        Row(
            method.label,
            _swatch(look[method.label]),
            [
                _cell(method.of(lambda run: run.online, median), percent),
                _cell(method.of(lambda run: outcomes.area_under_curve(run.tasks)), percent),
                _cell(method.of(study.first), percent),
                _cell(method.of(lambda run: run.recovery)),
                _cell(method.of(lambda run: run.recovered), percent=True),
                Cell("") if method is best else _cell(study.improvement(best, method)),
            ],
        )
        for method in study.methods
    ]
    return Table(
        ["median", "area under task curve", "first fifth", "steps to recover", "recovered, %",
         f"P({best.label} is better)"],
        rows,
        "Recovery: steps after a change until a window is back to 90% of the last one before it, "
        "where it is before the next change; resolution one logging window. P: chance that a seed "
        f"of {best.label} does better than one of the method.",
    )  # fmt: skip


def correlation_table(study: Study) -> Table:
    """Every metric against performance, strongest first."""
    rows = [
        Row(
            verdict.tag_words(one.tag),
            Markup(""),
            [
                Cell(
                    verdict.correlation(one.pooled),
                    f"[{verdict.correlation(one.low)}, {verdict.correlation(one.high)}]"
                    if math.isfinite(one.low)
                    else "",
                ),
                Cell(verdict.correlation(one.within)),
                Cell(str(one.runs)),
            ],
        )
        for one in study.correlations
    ]
    return Table(
        ["all runs", "within methods", "runs"],
        rows,
        "Spearman's rank correlation between the metric halfway through a run and performance in "
        "its last fifth, turned so that performance is better upwards. Within methods: each "
        "method's mean taken off first, so that what is left is seed against seed.",
    )


def _overall(studies: list[Study], look: dict[str, drawing.Style]) -> Table | None:
    found = overall(studies)
    if found is None:
        return None
    order, ranking = found
    rows = [
        Row(
            label,
            _swatch(look[label]),
            [_place(ranking, place), Cell(f"{100 * ranking.best[place]:.0f}%")],
        )
        for place, label in enumerate(order)
    ]
    return Table(
        ["mean place", "ranks first"],
        rows,
        "Mean place over the benchmarks that all these methods have; the interval is over draws "
        "of benchmarks and, within each, of seeds.",
    )


def _swatch(style: drawing.Style) -> Markup:
    dashes = " ".join(f"{1.5 * part:g}" for part in style.dashes)
    return Markup(
        '<svg class="swatch" viewBox="0 0 26 8" aria-hidden="true"><line x1="0" y1="4" x2="26" '
        'y2="4" stroke="{}" stroke-width="2" stroke-dasharray="{}"/></svg>'
    ).format(style.color, dashes)


def provenance(results: Results) -> list[tuple[str, str]]:
    """Where the numbers come from: (what, value)."""
    runs = [run for run in results.runs if run.status]
    versions = sorted(
        {
            f"{name} {version}"
            for run in runs
            for name, version in dict(run.status.get("versions") or {}).items()
        }
    )
    times = sorted(str(run.status.get("time", "")) for run in runs)
    hashes = {str(run.status.get("config_hash", ""))[:12] for run in runs}
    seeds = sorted({run.seed for run in results.runs})
    return [
        ("Folder", str(results.folder)),
        ("Runs", f"{len(results.runs)}, of which {sum(r.over for r in results.runs)} are over"),
        ("Seeds", ", ".join(map(str, seeds))),
        ("Made with", ", ".join(versions)),
        ("Last change of a run", times[-1] if times else ""),
        ("Configurations", f"{len(hashes)} (SHA-256: {', '.join(sorted(hashes)[:8])}"
         f"{', …' if len(hashes) > 8 else ''})"),
        ("Report by", f"clrl {__version__}"),
    ]  # fmt: skip
