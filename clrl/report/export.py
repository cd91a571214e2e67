"""Writes a report's files: the page, figures, tables and the numbers themselves."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clrl.errors import UsageError
from clrl.report import Format, drawing, outcomes, page, verdict
from clrl.report.aggregate import interquartile_mean, median
from clrl.report.analysis import DIAGNOSTICS, Estimate, Method, Study, studies
from clrl.report.panels import panels_of
from clrl.report.results import Results, read
from clrl.report.runs import Column, Run, columns
from clrl.storage import files, record

FOLDER = "report"
"""Where a report goes, within the folder that it is about."""


def write(
    folder: Path,
    formats: Sequence[Format],
    out: Path | None = None,
    beside: Sequence[Path] = (),
    show: Sequence[str] = (),
) -> list[Path]:
    """Write a report about a suite's folder, or about several side by side.

    Args:
        folder: what ``clrl suite`` or ``clrl run`` was given as ``--out``, or a folder of such.
        formats: what to write.
        out: where to; the folder ``report`` within ``folder`` unless given. It is made where
            it is missing, and files of an earlier report are replaced.
        beside: further folders, to be compared with the first.
        show: metrics of networks to show beside the usual ones, such as ``dormant_units``.

    Returns:
        The files, or for figures the folder that holds them.

    Raises:
        UsageError: ``folder`` holds no runs or none with a metric to show, ``out`` cannot be
            written to, or Parquet is asked for and pyarrow is not installed.
    """
    if "parquet" in formats:
        _pyarrow()
    out = out or folder / FOLDER
    for one in (folder, *beside):
        if not one.is_dir():
            raise UsageError(f"{one}: expected a folder with runs; there is no such folder")
    results = read(folder, *beside)
    found = studies(results, show) if show or set(formats) - {"csv", "parquet"} else []
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [_WRITERS[name](results, found, out) for name in dict.fromkeys(formats)]
    except OSError as error:
        raise UsageError(f"--out {out}: cannot write there: {error.strerror}") from error


def _html(results: Results, found: list[Study], out: Path) -> Path:
    path = out / "report.html"
    files.write_atomically(path, page.render(results, found).encode())
    return path


def _figures(ending: str) -> Callable[[Results, list[Study], Path], Path]:
    def write_figures(results: Results, found: list[Study], out: Path) -> Path:
        folder = out / "figures"
        folder.mkdir(exist_ok=True)
        look = drawing.styles(page.labels(results, found))
        for study in found:
            shown = {method.label: look[method.label] for method in study.methods}
            for panel in panels_of(study, look):
                path = folder / f"{safe(study.benchmark)}-{panel.name}{ending}"
                drawing.save(panel, path, shown)
        return folder

    return write_figures


def safe(label: str) -> str:
    """A label as part of a file's name: that of one of several folders may have slashes."""
    return label.replace("/", "-").replace(":", "-")


def tidy(results: Results) -> Iterator[tuple[Run, dict[str, Column]]]:
    """Everything that was recorded, a run at a time: each tag's steps and finite values."""
    for run in results.runs:
        folder = results.places.get((run.benchmark, run.learner, run.seed))
        path = folder / record.METRICS if folder else None
        if path and path.is_file():
            found, _, _ = columns(path, lambda tag: True)
            finite = {tag: np.isfinite(column.values) for tag, column in found.items()}
            yield (
                run,
                {
                    tag: Column(column.steps[finite[tag]], column.values[finite[tag]])
                    for tag, column in found.items()
                    if finite[tag].any()
                },
            )


COLUMNS = ("benchmark", "learner", "seed", "step", "metric", "value")


def _csv(results: Results, found: list[Study], out: Path) -> Path:
    path = out / "metrics.csv"
    temporary = path.with_suffix(".csv.tmp")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for run, of_run in tidy(results):
            start = (run.benchmark, run.learner, run.seed)
            for tag, column in of_run.items():
                pairs = zip(map(int, column.steps), column.values.tolist(), strict=True)
                writer.writerows((*start, step, tag, value) for step, value in pairs)
    temporary.replace(path)
    return path


def _parquet(results: Results, found: list[Study], out: Path) -> Path:
    pyarrow, parquet = _pyarrow()
    path = out / "metrics.parquet"
    temporary = path.with_suffix(".parquet.tmp")
    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    kinds = (text, text, pyarrow.int64(), pyarrow.int64(), text, pyarrow.float64())
    schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    with parquet.ParquetWriter(temporary, schema) as writer:
        for run, of_run in tidy(results):
            if not of_run:
                continue
            lengths = [len(column.steps) for column in of_run.values()]
            same = [[name] * sum(lengths) for name in (run.benchmark, run.learner, run.seed)]
            steps = np.concatenate([column.steps for column in of_run.values()]).astype(np.int64)
            values = np.concatenate([column.values for column in of_run.values()])
            arrays = [*same, steps, np.repeat(list(of_run), lengths).tolist(), values]
            made = [pyarrow.array(a, type=kind) for a, kind in zip(arrays, kinds, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(made, schema=schema))
    temporary.replace(path)
    return path


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "--format parquet: needs pyarrow (pip install pyarrow); csv holds the same table"
        ) from None
    return pyarrow, pyarrow.parquet


def _json(results: Results, found: list[Study], out: Path) -> Path:
    path = out / "report.json"
    content = {
        "folder": str(results.folder),
        "remarks": verdict.remarks(results),
        "provenance": dict(page.provenance(results)),
        "benchmarks": {study.benchmark: _numbers(study) for study in found},
    }
    text = json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"
    files.write_atomically(path, text.encode())
    return path


def _numbers(study: Study) -> dict[str, Any]:
    return {
        "performance": study.performance and study.performance.online,
        "higher_is_better": study.sign > 0,
        "preliminary": study.preliminary,
        "verdict": verdict.of_study(study),
        "methods": [
            {"method": method.label, "remark": method.remark, **_figures_of(study, method)}
            for method in study.methods
        ],
        "comparisons": [{**vars(one), "shown": one.shown} for one in study.claims.comparisons],
        "comparisons_made": study.claims.made,
        "correlations": [vars(one) for one in study.correlations],
        "sweeps": [
            {**vars(sweep), "estimates": {k: vars(v) for k, v in sweep.estimates.items()}}
            for sweep in study.sweeps
        ],
    }


def _figures_of(study: Study, method: Method) -> dict[str, Any]:
    def online(run: Run) -> float:
        return run.online

    back = study.recovery(method)
    figures: dict[str, Estimate] = {
        "online": method.of(online, within=study.limits),
        "online_interquartile_mean": method.of(online, interquartile_mean),
        "online_median": method.of(online, median),
        "area_under_task_curve": method.of(lambda run: outcomes.area_under_curve(run.tasks)),
        "first_fifth": method.of(study.first, within=study.limits),
        "last_fifth": method.of(study.last, within=study.limits),
        "loss_of_plasticity": method.of(study.loss_of_plasticity),
        "recovery_steps": Estimate.of([one.steps for one in back], within=(0.0, math.inf)),
        "recovered": Estimate.of([one.share for one in back], within=(0.0, 1.0)),
    }
    gap = study.gap(method)
    return {
        **{name: vars(found) for name, found in figures.items()},
        "shown_better_than": study.claims.beaten(method.label),
        "tasks": [
            vars(Estimate.of(list(column), within=study.limits)) for column in method.tasks().T
        ],
        "plasticity_gap": None
        if gap is None
        else [
            {"value": value, "low": low, "high": high}
            for value, low, high in zip(*(part.tolist() for part in gap), strict=True)
        ],
        "seeds": {
            str(run.seed): {"state": run.state, "online": run.online, "tasks": run.tasks.tolist()}
            for run in method.runs
        },
    }


def _finite(plain: Any) -> Any:
    """The same without numbers that JSON does not have: they become null."""
    if isinstance(plain, dict):
        return {key: _finite(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_finite(value) for value in plain]
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def _latex(results: Results, found: list[Study], out: Path) -> Path:
    path = out / "tables.tex"
    look = drawing.styles(page.labels(results, found))
    tables = []
    for study in filter(lambda study: study.methods, found):
        tables.append(_tabular(study.benchmark, page.main_table(study, look)))
        if study.shown != DIAGNOSTICS:  # more were asked for
            tables.append(_tabular(study.benchmark, page.network_table(study, look)))
    text = "% Needs \\usepackage{booktabs}.\n" + "\n".join(tables)
    files.write_atomically(path, text.encode())
    return path


def _tabular(benchmark: str, table: page.Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(_escaped, cells)) + r" \\"

    rows = [
        line(
            [
                row.label,
                *(f"{c.text} {c.interval}".strip() if c.interval else c.text for c in row.cells),
            ]
        )
        for row in table.rows
    ]
    return "\n".join(
        [
            f"% {benchmark}: {table.note}",
            rf"\begin{{tabular}}{{l{'r' * len(table.heads)}}}",
            r"\toprule",
            line(["method", *table.heads]),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    text = "".join("\\" + letter if letter in "&%$#_{}" else letter for letter in text)
    return text.replace("−", "$-$").replace("–", "--")


_WRITERS: dict[str, Callable[[Results, list[Study], Path], Path]] = {
    "html": _html,
    "pdf": _figures(".pdf"),
    "png": _figures(".png"),
    "csv": _csv,
    "parquet": _parquet,
    "json": _json,
    "latex": _latex,
}
