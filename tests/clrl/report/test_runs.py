"""Reading a run's metrics, and its curves on a grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clrl.report import runs
from clrl.report.runs import Grid, columns


def everything(tag: str) -> bool:
    return True


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_columns_keep_the_order_of_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m",
        '{"step": 0, "b": 1.0}',
        '{"step": 5, "a": 2.0, "b": 3}',
        '{"step": 5, "b": null}',
        '{"step": 9, "c": 4.0}',
    )
    found, bad, cut = columns(path, lambda tag: tag != "c")
    assert (bad, cut) == (0, False) and set(found) == {"a", "b"}
    assert found["a"].steps.tolist() == [5] and found["a"].values.tolist() == [2.0]
    assert found["b"].steps.tolist() == [0, 5, 5]
    assert found["b"].values[:2].tolist() == [1.0, 3.0] and np.isnan(found["b"].values[2])


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "",
        "[1, 2]",
        "7",
        '{"a": 1.0}',
        '{"step": "3", "a": 1.0}',
        '{"step": true, "a": 1.0}',
        '{"step": 1, "a": 1.0}',  # goes back
        '{"step": 3, "a": "high"}',
        '{"step": 3, "a": {"b": 1}}',
        '{"step": 3, "a": true}',
        '{"step": 3, "a": NaN}',
        "\0\0\0\0",
    ],
)
def test_a_damaged_line_is_left_out_and_counted(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "m", '{"step": 2, "a": 1.0}', line, '{"step": 4, "a": 2.0}')
    found, bad, cut = columns(path, everything)
    assert (bad, cut) == (1, False)
    assert found["a"].values.tolist() == [1.0, 2.0]


def test_a_cut_off_line_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text('{"step": 2, "a": 1.0}\n{"step": 4, "a')
    found, bad, cut = columns(path, everything)
    assert (bad, cut) == (0, True) and found["a"].values.tolist() == [1.0]


def test_grid() -> None:
    short = Grid.of(100, 10)
    assert short.steps.tolist() == list(range(0, 101, 10))
    assert short.index(np.array([0.0, 1.0, 10.0, 11.0, 100.0])).tolist() == [0, 1, 1, 2, 10]
    long = Grid.of(1_000_000, 100)  # 10,000 lines: 42 of them a point
    assert long.width == 4200 and long.points <= runs.POINTS + 1
    assert long.steps[-1] >= 1_000_000


def test_points_are_means_by_length_of_window(tmp_path: Path) -> None:
    column = runs.Column(np.array([10.0, 30.0, 40.0]), np.array([1.0, 4.0, np.nan]))
    curve = runs._on_grid(column, Grid(30, 3))
    assert curve[1] == (10 * 1.0 + 20 * 4.0) / 30
    assert np.isnan(curve[[0, 2]]).all()
