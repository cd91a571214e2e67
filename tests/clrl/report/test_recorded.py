"""What runs recorded, as arrays and as a table, whole and damaged."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clrl
from clrl.report.recorded import COLUMNS


def write(folder: Path, learner: str, seed: int, rows: list[dict[str, Any]], **status: Any) -> Path:
    run = folder / "bench" / learner / f"seed-{seed}"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "status.json").write_text(json.dumps({"state": "finished", **status}))
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"step": 10, "a": 1.0, "b": 5.0}, {"step": 20, "a": 2.0}, {"step": 20, "a": 3.0}]
    write(tmp_path, "x", 0, rows)
    write(tmp_path, "x", 2, [{"step": 10, "a": 4.0}, {"step": 30, "a": None}], state="running")
    (tmp_path / "suite.yaml").write_text(
        "benchmarks: {bench: permuted-digits}\nseeds: [0, 1, 2]\nlearners: {x: {optimizer: sgd}}\n"
    )
    return tmp_path


def test_curve_has_a_row_for_each_seed_and_a_point_for_each_value(folder: Path) -> None:
    curve = clrl.load(folder).curve("a")
    assert curve.seeds == (0, 1, 2)
    assert curve.steps.tolist() == [10, 20, 20, 30]
    assert curve.shape == curve.values.shape == (3, 4)
    nan = math.nan
    expected = np.array([[1, 2, 3, nan], [nan] * 4, [4, nan, nan, nan]])
    np.testing.assert_array_equal(curve.values, expected)
    np.testing.assert_array_equal(np.asarray(curve), expected)


def test_states_and_what_is_missing(folder: Path) -> None:
    results = clrl.load(str(folder))
    assert [state for _, state in sorted(results.states.items())] == [
        "finished",
        "missing",
        "running",
    ]
    assert results.metrics == ("a", "b")
    assert repr(results).startswith(f"<{folder}: 3 runs (1 finished, 1 missing, 1 running)")


def test_damaged_folders_give_what_can_be_read(folder: Path) -> None:
    (folder / "suite.yaml").write_text(": no [ suite")
    run = folder / "bench/x/seed-0"
    (run / "status.json").write_text("{")
    (run / "metrics.jsonl").write_text('{"step": 10, "a": 1.0}\nnonsense\n{"step": 20, "a": 2.0')
    results = clrl.load(folder)
    assert "suite.yaml is missing or damaged" in results.problems[0]
    assert results.seeds == (0, 2)  # the one that left nothing cannot be told
    assert results.states["bench", "x", 0] == "unknown"
    assert results.select(seeds=0).curve("a").values.tolist() == [[1.0]]


def test_table_without_a_library_of_data_frames(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    rows = clrl.load(folder).table()
    assert rows[0] == dict(zip(COLUMNS, ("bench", "x", 0, 10, "a", 1.0), strict=True))
    assert len(rows) == 5  # four finite values of a, one of b
    assert [row["value"] for row in clrl.load(folder).table(["b"])] == [5.0]


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_table_as_a_data_frame(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in: both make a frame of a mapping from columns to values."""
    for other in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, other, None)
    stand_in = types.ModuleType(name)
    stand_in.DataFrame = lambda data: ("frame", data)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, stand_in)
    kind, data = clrl.load(folder).table()
    assert kind == "frame"
    assert tuple(data) == COLUMNS
    assert {len(column) for column in data.values()} == {5}
    assert data["step"] == [10, 20, 20, 10, 10]


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_table_as_a_real_data_frame(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    monkeypatch.setitem(sys.modules, {"pandas": "polars", "polars": "pandas"}[name], None)
    frame = clrl.load(folder).table()
    assert tuple(frame.columns) == COLUMNS
    assert frame.shape == (5, 6)


def test_mistakes_name_what_is_there(folder: Path) -> None:
    write(folder, "y", 0, [{"step": 1, "a": 0.0}])
    results = clrl.load(folder)
    for call, expected in (
        (lambda: results.curve("a"), "learner: expected one of x, y, got nothing"),
        (lambda: results.curve("a", learner="z"), "unknown learner 'z'"),
        (lambda: results.curve("a", benchmark="B", learner="x"), "unknown benchmark 'B'"),
        (lambda: results.curve("aa", learner="x"), "did you mean 'a'?, got 'aa'"),
        (lambda: results.select(seeds=[7]), "unknown seed 7"),
        (lambda: clrl.load(folder / "nowhere"), "there is no such folder"),
        (lambda: clrl.load(folder / "bench"), "it holds none"),
    ):
        with pytest.raises(clrl.UsageError, match="^[^\n]*$") as raised:
            call()
        assert expected in str(raised.value)
