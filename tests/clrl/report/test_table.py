"""The table at the end of a suite, on folders written by hand."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from clrl.report.runs import Column
from clrl.report.table import Figure, print_plan, print_tables, rough, summary
from clrl.storage import record

DEAD = "plasticity/network/dead_units"


def run(folder: Path, rows: list[dict[str, float]], state: str = "finished") -> None:
    """A run's folder; each row holds its step."""
    record.start_run(folder, int(folder.name[5:]), {}, "hash")
    with record.Recorder(folder) as recorder:
        for row in rows:
            recorder.write(int(row["step"]), {tag: row[tag] for tag in row if tag != "step"})
    record.end_run(folder, state)  # type: ignore[arg-type]


def printed(folder: Path, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_tables(folder, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


def column(*values: float | None, steps: Sequence[int] | None = None) -> dict[str, Column]:
    """What a run recorded under the tag ``a``."""
    found = np.array(values, np.float64)
    return {
        "a": Column(np.arange(1.0, len(found) + 1) if steps is None else np.array(steps), found)
    }


def test_windows_weigh_by_their_length() -> None:
    figure = Figure("mean", "a", "whole")
    run = column(1.0, 0.5, 0.0, steps=[100, 200, 250])
    assert figure.of(run) == (100 * 1.0 + 100 * 0.5 + 50 * 0.0) / 250
    assert figure.of(column(1.0, None, steps=[10, 20])) == 1.0
    assert np.isnan(Figure("mean", "b", "whole").of(run))


def test_the_last_value_may_be_nought() -> None:
    figure = Figure("dead", "a", "end", percent=True)
    assert figure.of(column(0.5, 0.0, None)) == 0.0
    assert np.isnan(figure.of(column(None))) and np.isnan(figure.of({}))


@pytest.mark.parametrize(
    ("values", "percent", "cell"),
    [
        ([0.912], True, ("91.2", "")),
        ([0.5, 0.5, 0.5], True, ("50.0", "")),
        ([12.34, 15.34], False, ("13.8", "")),
        # Student's quantile of 99% at four degrees of freedom is 4.604: 4.604 / sqrt(5) = 2.059
        # standard deviations, which are 0.01 * sqrt(2.5), or one.
        ([0.5, 0.51, 0.52, 0.53, 0.54], True, ("52.0", "[48.7, 55.3]")),
        ([12.0, 13.0, 14.0, 15.0, 16.0], False, ("14.0", "[10.7, 17.3]")),
        ([0.0865, 0.0865], False, ("0.086", "")),
        ([0.001234], False, ("0.0012", "")),
        ([1234.0], False, ("1234", "")),
        ([0.0, 0.0], False, ("0.0", "")),
        ([], False, ("-", "")),
    ],
)
def test_cells(values: list[float], percent: bool, cell: tuple[str, str]) -> None:
    figure = Figure("a", "a", "end", percent)
    assert summary(figure, [column(value) for value in values]) == cell


def test_a_row_a_learner_and_a_table_a_benchmark(tmp_path: Path) -> None:
    digits = tmp_path / "digits"
    for seed, accuracy in enumerate((0.5, 0.7)):
        rows = [
            {"step": 0, DEAD: 0.5},
            {"step": 10, "online/accuracy": accuracy, "online/loss": 1.0, "task/accuracy": 1.0},
            {"step": 10, DEAD: 0.25},
        ]
        run(digits / "adam" / f"seed-{seed}", rows)
    run(digits / "sgd" / "seed-0", [{"step": 10, "online/accuracy": 0.25}], "diverged")
    run(digits / "sgd" / "seed-1", [{"step": 10, "online/accuracy": 0.75}])
    run(digits / "sgd" / "seed-2", [{"step": 10, "online/accuracy": 0.9}], "preempted")
    run(tmp_path / "line" / "adam" / "seed-0", [{"step": 10, "online/loss": 1.5}])
    lines = printed(tmp_path, width=200)
    assert lines[0] == "digits: mean over seeds [interval]"
    assert lines[1].split("  ")[0] == "learner"
    adam, sgd = lines[2], lines[3]
    cells = "60.0 100.0 25.0"  # of two seeds no interval, and no columns that nobody has
    assert adam.split() == ["adam", "2", *cells.split()]
    assert sgd.split()[:5] == ["sgd", "(1", "diverged)", "2", "50.0"]
    assert lines[4] == "line: mean over seeds [interval]"
    assert "whole-run loss" in lines[5]
    assert lines[6].split() == ["adam", "1", "1.50", "-"]


def test_control_says_last_task_and_which_network(tmp_path: Path) -> None:
    dead = {"plasticity/actor/dead_units": 0.1, "plasticity/critic/dead_units": 0.8}
    rows = [
        {"step": 10, "online/return": 500.0, "online/episodes": 1.0, "online/return_of_100": 500.0},
        {"step": 20, "online/return": 20.0, "online/episodes": 1.0, "online/return_of_100": 260.0,
         "task/return": 20.0, "task/index": 1.0, **dead},
    ]  # fmt: skip
    run(tmp_path / "pole" / "ppo" / "seed-0", rows)
    lines = printed(tmp_path, 200)
    heads = ["whole-run return", "last-task return", "actor dead units %", "critic dead units %"]
    assert [head.strip() for head in lines[1].split("  ") if head.strip()][2:] == heads
    assert lines[2].split() == ["ppo", "1", "260", "20.0", "10.0", "80.0"]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_nothing_is_cut_off(tmp_path: Path, width: int) -> None:
    tags = ("online/accuracy", "task/accuracy", DEAD, "plasticity/network/effective_rank")
    tags += ("plasticity/network/grad_norm", "plasticity/network/weight_magnitude")
    for seed in range(5):
        row = {"step": 10.0, **dict.fromkeys(tags, 0.5 + seed / 50)}
        run(tmp_path / "b" / "continual-backprop" / f"seed-{seed}", [row])
    lines = printed(tmp_path, width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines).replace(", ", ",")
    assert "…" not in text
    assert text.count("[47.5,60.5]") == 3
    assert text.count("[0.475,0.605]") == 3
    assert "continual-backprop" in text


def test_nothing_finished_prints_nothing(tmp_path: Path) -> None:
    run(tmp_path / "b" / "l" / "seed-0", [{"step": 1, "online/loss": 1.0}], "failed")
    assert printed(tmp_path) == []


def test_a_damaged_file_costs_its_damaged_lines_alone(troubled_folder: Path) -> None:
    text = "\n".join(printed(troubled_folder, width=200))
    assert "steady" in text and "fading (1 diverged)" in text


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0.0, "0 s"),
        (12.3 / 3600, "12 s"),
        (59.7 / 3600, "1 min"),
        (3.4 / 60, "3 min"),
        (0.997, "1.0 h"),
        (12.34, "12 h"),
        (50.0, "2.1 days"),
        (480.0, "20 days"),
    ],
)
def test_times_to_come_have_two_digits(hours: float, words: str) -> None:
    assert rough(hours) == words


@pytest.mark.parametrize(
    ("populations", "said"),
    [
        ([("b/l", [3], False, 0.01)], "1 run in 1 population, 36 s of one core; here, about 18 s."),
        (
            [("b/l", [0, 1], True, 1.0), ("b/m", [0], False, 2.0)],
            "3 runs in 2 populations, 3.0 h of one core; here, about 1.5 h.",
        ),
    ],
)
def test_a_plan_in_words(
    populations: list[tuple[str, list[int], bool, float]],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_plan(populations, "here", 2)
    printed = capsys.readouterr().out
    assert printed.endswith(f"{said} Nothing was written.\n")
    assert ("from its checkpoint" in printed) == populations[0][2]
