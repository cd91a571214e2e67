"""Reading results folders, whole and damaged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from clrl.errors import UsageError
from clrl.report import results
from clrl.report.results import read


def test_a_finished_suite(suite_folder: Path) -> None:
    found = read(suite_folder)
    assert found.problems == [] and list(found.benchmarks) == ["digits", "pole"]
    assert len(found.runs) == 6 * 4 + 2 * 4
    assert [run.seed for run in found.runs[:4]] == [0, 1, 2, 3]
    run = next(run for run in found.runs if run.learner == "fading" and run.seed == 0)
    assert run.state == "finished" and run.over and run.step == 1000 and not run.problems
    assert run.performance is not None and run.performance.name == "accuracy"
    assert run.changes.tolist() == list(range(100, 1000, 100))
    assert len(run.tasks) == 10
    # Each window but the first of a task is at the task's level, the first 0.1 below it.
    assert run.online == pytest.approx((run.tasks + 0.01).mean() - 0.01)
    assert run.within.tolist() == list(range(10, 101, 10))
    assert run.early[0] == pytest.approx(run.early[1] - 0.1)
    assert run.early[1] - run.late[1] == pytest.approx(np.mean(run.tasks[:2] - run.tasks[-2:]))
    assert "plasticity/network/weight_magnitude/layer_1" not in run.curves
    dead = run.curves["plasticity/network/dead_units"]
    assert np.flatnonzero(np.isfinite(dead)).tolist() == list(range(0, 101, 10))


def test_a_control_task(suite_folder: Path) -> None:
    run = next(run for run in read(suite_folder).runs if run.learner == "ppo")
    assert run.performance is not None and run.performance.name == "return"
    assert run.tasks.tolist() == [100.0] * 5 and run.changes.tolist() == [200, 400, 600, 800]
    # Windows of 20 steps, every seventh without an episode.
    curve = run.curves["online/return"]
    assert np.isfinite(curve).sum() == 50 - 7


def test_a_troubled_suite(troubled_folder: Path) -> None:
    found = {run.name: run for run in read(troubled_folder).runs}
    assert len(found) == 6 * 4 + 2 * 4
    assert found["digits/steady seed 0"].problems == ["1 damaged line in metrics.jsonl left out"]
    assert found["digits/steady seed 0"].step == 1000
    assert found["digits/steady seed 2"].state == "missing"
    assert found["digits/fading seed 1"].state == "diverged"
    assert found["pole/ppo seed 3"].state == "running" and not found["pole/ppo seed 3"].over
    assert not found["pole/ppo seed 3"].problems


def test_what_else_can_be_wrong(suite_folder: Path) -> None:
    steady = suite_folder / "digits" / "steady"
    (steady / "seed-0" / "metrics.jsonl").write_text("")
    (steady / "seed-1" / "metrics.jsonl").unlink()
    (steady / "seed-2" / "status.json").write_text("{")
    with open(steady / "seed-3" / "metrics.jsonl", "a") as file:
        file.write('{"step": 10')
    (suite_folder / "suite.yaml").write_text("a: [")
    found = read(suite_folder)
    assert found.suite == {} and "suite.yaml" in found.problems[0]
    problems = {run.name: run.problems for run in found.runs if run.problems}
    assert problems == {
        "digits/steady seed 0": ["metrics.jsonl holds nothing"],
        "digits/steady seed 1": ["metrics.jsonl cannot be read: No such file or directory"],
        "digits/steady seed 2": ["status.json is missing or damaged"],
        "digits/steady seed 3": ["the last line of metrics.jsonl is cut off"],
    }
    # Without the suite the grid comes from what the runs recorded.
    assert found.benchmarks["digits"].steps[-1] == 1000


def test_a_suite_whose_parts_have_other_types(suite_folder: Path) -> None:
    parts = "benchmarks: {digits: 1}\nlearners: {steady: {benchmarks: 2}}\n"
    for text in ("[]", "seeds: 3\n" + parts, "seeds: [x]\n" + parts, "benchmarks: 7\nlearners: []"):
        (suite_folder / "suite.yaml").write_text(text)
        assert len(read(suite_folder).runs) == 32


def test_many_runs_are_read_in_several_processes(suite_folder: Path, monkeypatch) -> None:
    one = read(suite_folder)
    monkeypatch.setattr(results, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    many = read(suite_folder)
    assert [run.name for run in many.runs] == [run.name for run in one.runs]
    assert [run.online for run in many.runs] == [run.online for run in one.runs]


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="it holds none"):
        read(tmp_path)
    (tmp_path / "b" / "l" / "seed-x").mkdir(parents=True)
    (tmp_path / "suite.yaml").write_text(json.dumps({"seeds": [0], "benchmarks": {"b": {}}}))
    with pytest.raises(UsageError, match="it holds none"):
        read(tmp_path)


class TestSideBySide:
    def copies(self, folder: Path, *names: str) -> list[Path]:
        made = [folder.parent / "all" / name for name in names]
        for one in made:
            shutil.copytree(folder, one)
        return made

    def edit(self, folder: Path, old: str, new: str) -> None:
        suite = folder / "suite.yaml"
        assert old in suite.read_text()
        suite.write_text(suite.read_text().replace(old, new))

    def test_one_folder_is_read_as_ever(self, suite_folder: Path) -> None:
        found = read(suite_folder)
        assert found.title == suite_folder.name
        assert {run.learner for run in found.runs} >= {"steady", "ppo"}
        keys = {(run.benchmark, run.learner, run.seed) for run in found.runs}
        assert {*found.places} == keys

    def test_learners_of_the_same_name_stay_apart(self, suite_folder: Path) -> None:
        one, two = self.copies(suite_folder, "one", "two")
        (two / "digits" / "steady").rename(two / "digits" / "calm")
        self.edit(two, "  steady:", "  calm:")
        found = read(one, two)
        learners = {run.learner for run in found.runs if run.benchmark == "digits"}
        assert {"steady", "calm", "one:fading", "two:fading"} <= learners
        assert "fading" not in learners
        assert found.title == "one and two"
        assert len(found.runs) == 2 * len(read(suite_folder).runs)
        assert {run.state for run in found.runs} == {"finished"}
        entry = found.suite["learners"]["two:fading"]
        assert entry["benchmarks"] == ["digits"]
        assert found.places["digits", "two:fading", 1] == two / "digits" / "fading" / "seed-1"

    def test_benchmarks_of_other_settings_are_not_compared(self, suite_folder: Path) -> None:
        one, two = self.copies(suite_folder, "one", "two")
        text = yaml.safe_load((two / "suite.yaml").read_text())
        text["benchmarks"]["digits"] = {"name": "permuted-digits", "task_length": 7}
        (two / "suite.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
        found = read(one, two)
        assert list(found.benchmarks) == ["one:digits", "pole", "two:digits"]
        assert found.suite["learners"]["two:fading"]["benchmarks"] == ["two:digits"]

    def test_a_folder_of_folders(self, suite_folder: Path) -> None:
        one, _ = self.copies(suite_folder, "one", "two")
        assert {run.learner for run in read(one.parent).runs} >= {"one:steady", "two:steady"}

    def test_longer_runs_keep_their_length(self, suite_folder: Path) -> None:
        one, two = self.copies(suite_folder, "one", "two")
        for path in two.glob("digits/*/*/metrics.jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            more = [{**row, "step": row["step"] + 1000} for row in rows[1:]]
            path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *more]))
        for path in two.glob("digits/*/*/config.yaml"):
            path.write_text("steps: 2000\nlog_every: 10\n")
        found = read(one, two)
        assert found.benchmarks["digits"].steps[-1] == 2000

    def test_the_same_folder_twice(self, suite_folder: Path) -> None:
        with pytest.raises(UsageError, match="expected folders that differ, got one twice"):
            read(suite_folder, suite_folder)


def test_a_benchmarks_curves_are_as_long_as_its_longest_learner(tmp_path: Path) -> None:
    suite = {
        "steps": 100,
        "log_every": 10,
        "learners": {
            "a": {"benchmarks": ["x"]},
            "b": {"benchmarks": ["y"], "steps": 300, "log_every": 50},
            "c": {"benchmarks": ["y"]},
        },
    }
    grids = {name: results._grid(suite, name, []) for name in "xy"}
    assert (grids["x"].points, grids["x"].width) == (11, 10)
    assert (grids["y"].points, grids["y"].width) == (7, 50)
