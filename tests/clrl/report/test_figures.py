"""What figures promise: methods told apart, changes marked, nothing drawn where nothing is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clrl.report import figures
from clrl.report.analysis import Study, studies
from clrl.report.drawing import Panel, Style, styles
from clrl.report.panels import panels_of
from clrl.report.results import read


def panel(folder: Path, benchmark: str, name: str) -> Panel:
    (study,) = [study for study in studies(read(folder)) if study.benchmark == benchmark]
    return next(one for one in panels_of(study, look(study)) if one.name == name)


def look(study: Study) -> dict[str, Style]:
    return styles([method.label for method in study.methods])


@pytest.mark.parametrize(
    ("tasks", "groups"),
    [
        (2, [(0, 0), (1, 1)]),
        (6, [(i, i) for i in range(6)]),
        (30, [(0, 5), (6, 11), (12, 17), (18, 23), (24, 29)]),
        (7, [(0, 1), (2, 3), (4, 4), (5, 5), (6, 6)]),
    ],
)
def test_groups_of_tasks(tasks: int, groups: list[tuple[int, int]]) -> None:
    assert figures._task_groups(tasks) == groups


def test_learning_curves(troubled_folder: Path) -> None:
    axes = panel(troubled_folder, "digits", "curves").draw().axes[0]
    seeds = [line for line in axes.lines if line.get_gid() == "seeds"]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    # 3 of steady, 4 of fading, 2 of the sweep's reported half; a cross for the one that diverged.
    assert len(seeds) == 9 and len(crosses) == 1
    assert crosses[0].get_xdata() == 390
    (changes,) = [one for one in axes.collections if len(one.get_paths()) == 9]
    assert [path.vertices[0, 0] for path in changes.get_paths()] == list(range(100, 1000, 100))
    means = [line for line in axes.lines if line not in (*seeds, *crosses)]
    steady = max(means, key=lambda line: float(np.mean(line.get_ydata())))
    assert np.asarray(steady.get_ydata()).max() == pytest.approx(80, abs=2)  # in percent


def test_bars_and_the_scratch_line(suite_folder: Path) -> None:
    axes = panel(suite_folder, "digits", "tasks").draw().axes[0]
    assert len(axes.patches) == 5 * 3
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "1–2", "3–4", "5–6", "7–8", "9–10",
    ]  # fmt: skip
    heights = [bar.get_height() for bar in axes.patches]
    # Second method, fading: 0.88 - 0.01 over the first two tasks, 0.56 - 0.01 over the last.
    assert heights[5] == pytest.approx(87, abs=1.5) and heights[9] == pytest.approx(55, abs=1.5)
    lines = [c for c in axes.collections if len(c.get_paths()) == 1]
    level = [c.get_paths()[0].vertices for c in lines]
    fresh = [v[0, 1] for v in level if v[0, 1] == v[1, 1]]
    assert fresh == pytest.approx([89] * 5, abs=1.5)


def test_the_gap_rises(suite_folder: Path) -> None:
    axes = panel(suite_folder, "digits", "gap").draw().axes[0]
    assert np.asarray(axes.lines[0].get_ydata()) == pytest.approx(4.0 * np.arange(10))


def test_sensitivity_is_over_the_option(suite_folder: Path) -> None:
    axes = panel(suite_folder, "digits", "sweep-adam").draw().axes[0]
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "lr"
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [0.001, 0.01, 0.1]
    assert axes.get_ylabel() == "whole-run accuracy (%)"  # "online" is what a window had
    ring = axes.lines[-1]
    assert ring.get_xdata() == 0.01


def test_no_gap_and_no_sweep_without(suite_folder: Path) -> None:
    (_, pole) = studies(read(suite_folder))
    names = [one.name for one in panels_of(pole, look(pole))]
    assert "gap" not in names and not any(name.startswith("sweep") for name in names)
    assert {"actor-dead_units", "critic-dead_units"} <= set(names)
