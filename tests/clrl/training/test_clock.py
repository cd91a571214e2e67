"""One clock: n steps are n transitions of a learner's world, for whatever counts steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clrl.cli.main import main
from clrl.report import figures
from clrl.report.analysis import studies
from clrl.report.results import read
from clrl.settings.config import RunConfig, resolve
from clrl.settings.values import Place
from clrl.storage.record import read_metrics, run_folders
from clrl.training.control import Episodes
from clrl.training.dispatch import training

PPO = {"name": "ppo", "num_envs": 4, "num_steps": 64, "batch_size": 64, "epochs": 4}
SB3 = {"name": "sb3:PPO", "num_envs": 4, "n_steps": 64, "batch_size": 64, "n_epochs": 4}
DQN = {"name": "sb3:DQN", "num_envs": 4, "train_freq": 16, "learning_starts": 64}


class Lines:
    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.lines.append((step, dict(values)))

    def tasks(self) -> list[tuple[int, float]]:
        return [(step, line["task/index"]) for step, line in self.lines if "task/index" in line]


def config(agent: Mapping[str, Any], **raw: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "benchmark": {"name": "offset-cartpole", "task_length": 1000},
        "agent": dict(agent),
        "network": {"name": "mlp", "widths": [16, 8], "activation": "tanh"},
        "optimizer": {"name": "adam", "lr": 1e-2},
        "steps": 3000,
        "log_every": 512,
        **raw,
    }
    return resolve(settings, Place("test"))


@pytest.mark.parametrize("agent", [PPO, {**SB3, "n_epochs": 1}], ids=["ppo", "sb3"])
def test_tasks_end_and_runs_end_at_the_same_steps_for_every_seed(
    agent: Mapping[str, Any], tmp_path: Path, trained_here: None
) -> None:
    """Rollouts of 256 steps divide neither the tasks nor the run, and seeds are not alike."""
    text = {
        "benchmark": {"name": "offset-cartpole", "task_length": 1000},
        "agent": dict(agent),
        "network": {"name": "mlp", "widths": [16, 8], "activation": "tanh"},
        "steps": 3000,
        "log_every": 512,
        "seeds": "0-4",
        "learners": {"adam": {"optimizer": {"name": "adam", "lr": 0.01}}},
    }
    (tmp_path / "clock.yaml").write_text(json.dumps(text))
    out = tmp_path / "out"
    assert main(["suite", str(tmp_path / "clock.yaml"), "--out", str(out), "--workers", "1"]) == 0
    folders = run_folders(out)
    assert len(folders) == 5
    returns = set()
    for folder in folders:
        rows = read_metrics(folder / "metrics.jsonl")
        over = [(row["step"], row["task/index"]) for row in rows if "task/index" in row]
        assert over == [(1000, 0.0), (2000, 1.0), (3000, 2.0)]
        windows = [row["step"] for row in rows if "online/episodes" in row]
        assert windows == [512, 1024, 1536, 2048, 2560, 3000]
        assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)  # type: ignore[type-var]
        assert json.loads((folder / "status.json").read_text())["steps"] == 3000
        # CartPole pays 1 a step: what is not in an episode that ended is in the last of 4 lanes.
        counted = sum(
            (row.get("online/episodes") or 0) * (row.get("online/return") or 0) for row in rows
        )
        assert 3000 - 4 * 400 < counted <= 3000
        returns.add(rows[-1]["task/return"])
    assert len(returns) == 5
    (study,) = studies(read(out))
    assert figures.changes(study).tolist() == [1000, 2000]
    for method in study.methods:
        for run in method.runs:
            assert run.changes.tolist() == [1000, 2000] and len(run.tasks) == 3


def test_schedules_go_by_the_clock() -> None:
    """Of 600 steps in rollouts of 256 the last has 88; the rate is that of its first."""
    loop: Any = training(config({**PPO, "anneal_lr": True}, steps=600), [0, 1])
    rates, learn = [], loop.agent.population.learn

    def noted(*batches: Any, **others: Any) -> Any:
        found = learn(*batches, **others)
        (chunk,) = loop.agent.population._chunks
        rates.append(chunk.optimizer.base.param_groups[0]["lr"])
        return found

    loop.agent.population.learn = noted
    loop.run({0: Lines(), 1: Lines()})
    epochs = np.repeat([600, 600 - 256, 600 - 512], PPO["epochs"])
    assert rates == pytest.approx(0.01 * epochs / 600)


@pytest.mark.parametrize("agent", [PPO, SB3, DQN], ids=["ppo", "sb3:PPO", "sb3:DQN"])
@pytest.mark.parametrize(("steps", "end"), [(100, 100), (256, 256), (300, 300), (301, 304)])
def test_the_last_rollout_is_cut_and_learned_from(
    agent: Mapping[str, Any], steps: int, end: int
) -> None:
    """Where the environments of a learner do not divide the steps, the last row is whole."""
    sink = Lines()
    loop = training(config(agent, steps=steps), [1])
    assert loop.run({1: sink}) == {1: "finished"}
    step, last = sink.lines[-1]
    assert step == end
    name = agent["name"].rpartition(":")[2].lower()
    assert any(key.startswith(f"{name}/") for key in last)
    assert last["plasticity/" + ("network" if name == "dqn" else "actor") + "/weight_change"] > 0


def test_a_task_ends_with_the_row_that_reaches_its_end() -> None:
    """Four lanes step together: 250 steps are over with the row that ends at 252."""
    sinks = {seed: Lines() for seed in range(2)}
    benchmark = {"name": "offset-cartpole", "task_length": 250}
    training(config(PPO, benchmark=benchmark, steps=1000), range(2)).run(sinks)
    for sink in sinks.values():
        assert sink.tasks() == [(252, 0.0), (500, 1.0), (752, 2.0), (1000, 3.0)]


@pytest.mark.parametrize("agent", [PPO, SB3], ids=["ppo", "sb3"])
def test_tasks_shorter_than_an_episode_and_than_a_rollout(agent: Mapping[str, Any]) -> None:
    """A line for each, also where no episode ended in it."""
    sink = Lines()
    benchmark = {"name": "offset-cartpole", "task_length": 16}
    training(config(agent, benchmark=benchmark, steps=512), [0]).run({0: sink})
    assert sink.tasks() == [(16.0 * (i + 1), float(i)) for i in range(32)]
    returns = [line["task/return"] for _, line in sink.lines if "task/index" in line]
    assert np.isnan(returns[0]) and np.isfinite(returns).any()


def test_a_run_goes_on_in_the_midst_of_a_task_that_is_over() -> None:
    """What is over and not yet written is part of the state."""
    settings = config(PPO, log_every=2000)
    whole, early, late = Lines(), Lines(), Lines()
    training(settings, [3]).run({3: whole})
    first: Any = training(settings, [3])
    steps = first.steps({3: early})
    while first.step < 1280:
        next(steps)
    assert not early.lines
    second: Any = training(settings, [3])
    second.load_state_dict(first.state_dict())
    second.run({3: late})

    def untimed(sink: Lines) -> Any:
        return [
            (step, {k: v for k, v in line.items() if not k.startswith("time/")})
            for step, line in sink.lines
        ]

    assert untimed(late) == untimed(whole)
    assert whole.tasks() == [(1000, 0.0), (2000, 1.0), (3000, 2.0)]


def test_tasks_of_lanes_that_change_apart() -> None:
    """A member's task is that of its last lane; what others did in a task is counted for it."""
    episodes, none = Episodes(1, 2), np.zeros(2, np.bool_)
    one, both = np.ones(2), np.ones(2, np.bool_)
    episodes(one, none, {"task": np.array([0, 0])})
    episodes(one, both, {"task": np.array([1, 0])})
    episodes(one, np.array([True, False]), {"task": np.array([2, 1])})
    assert [(step, line.get("task/index")) for step, line in episodes.lines(0, False)] == [
        (4, 0.0),
        (6, None),
    ]
    episodes(one, both, {"task": np.array([2, 2])})
    lines = episodes.lines(0, True)
    assert [(step, line["task/index"], line["task/return"]) for step, line in lines] == [
        (6, 1.0, 2.0),
        (8, 2.0, pytest.approx(4 / 3)),
    ]
    assert lines[-1][1]["online/episodes"] == 2.0
