"""Runs with methods against forgetting: what is tested when, what is written, exact states."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clrl import suites
from clrl.agents.consolidation.table import CONSOLIDATION
from clrl.cli.choices import read_run
from clrl.errors import UsageError
from clrl.settings import suite_files
from clrl.settings.config import RunConfig, config_hash, resolve, to_dict
from clrl.settings.values import Place
from clrl.training.control import ControlTraining
from clrl.training.dispatch import training
from clrl.training.streams import Training

Line = tuple[int, dict[str, float]]


class Lines:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        assert all(type(value) is float for value in values.values())
        self.lines.append((step, dict(values)))

    def untimed(self, *without: str) -> list[Line]:
        skip = ("time/", *without)
        return [
            (step, {k: v for k, v in values.items() if not k.startswith(skip)})
            for step, values in self.lines
        ]

    def with_tag(self, tag: str) -> list[Line]:
        return [line for line in self.lines if tag in line[1]]


def stream_config(**raw: Any) -> RunConfig:
    settings = {
        "benchmark": {
            "name": "months",
            "data": "digits",
            "months": 2,
            "base_length": 120,
            "task_length": 60,
        },
        "agent": {"name": "supervised", "batch_size": 6, "test_examples": 50},
        "network": {"name": "mlp", "widths": [12]},
        "optimizer": {"name": "adam", "lr": 0.01},
        "steps": 240,
        "log_every": 60,
        **raw,
    }
    return resolve(settings, Place("test"))


def ppo_config(**raw: Any) -> RunConfig:
    settings = {
        "benchmark": {"name": "offset-cartpole", "task_length": 256},
        "agent": ppo(),
        "network": {"name": "mlp", "widths": [8]},
        "optimizer": {"name": "adam", "lr": 0.01},
        "steps": 768,
        "log_every": 256,
        **raw,
    }
    return resolve(settings, Place("test"))


def ppo(**more: Any) -> dict[str, Any]:
    return {
        "name": "ppo",
        "num_envs": 4,
        "num_steps": 32,
        "batch_size": 32,
        "epochs": 2,
        "test_episodes": 3,
        **more,
    }


def run(config: RunConfig, seeds: Sequence[int]) -> dict[int, Lines]:
    sinks = {seed: Lines() for seed in seeds}
    training(config, seeds).run(sinks)
    return sinks


def test_every_task_is_tested_at_the_end_of_each() -> None:
    sinks = run(stream_config(), [0, 1])
    for sink in sinks.values():
        rows = sink.with_tag("retention/accuracy/0")
        assert [step for step, _ in rows] == [120, 180, 240]
        assert [values["task/index"] for _, values in rows] == [0.0, 1.0, 2.0]
        matrix = np.array([[v[f"retention/accuracy/{i}"] for i in range(3)] for _, v in rows])
        assert ((0 <= matrix) & (matrix <= 1)).all()
        last = rows[-1][1]
        assert last["retention/average_accuracy"] == pytest.approx(matrix[2].mean())
        assert last["retention/learning_accuracy"] == pytest.approx(np.diag(matrix).mean())
        lost = [matrix[0, 0] - matrix[2, 0], matrix[1, 1] - matrix[2, 1]]
        assert last["retention/forgetting"] == pytest.approx(np.mean(lost))
        assert "retention/forgetting" not in rows[0][1]
        assert [v["cost/examples"] for _, v in rows] == [120.0, 180.0, 240.0]
        assert {v["cost/memory"] for _, v in rows} == {0.0}


def test_tests_are_of_the_streams_held_out_examples() -> None:
    made = Training(stream_config(optimizer={"name": "sgd", "lr": 0.0}), [4])
    sink = Lines()
    made.run({4: sink})
    parameters = {name: value[0] for name, value in made.agent.population.parameters().items()}
    for task in range(3):
        x, y = made.streams[0].test(task, 50)
        hidden = torch.relu(
            torch.from_numpy(x) @ parameters["linears.0.weight"].T + parameters["linears.0.bias"]
        )
        logits = hidden @ parameters["linears.1.weight"].T + parameters["linears.1.bias"]
        expected = float((logits.argmax(1).numpy() == y).mean())
        for _, values in sink.with_tag("retention/accuracy/0"):
            assert values[f"retention/accuracy/{task}"] == pytest.approx(expected)


def test_testing_disturbs_no_training() -> None:
    for make, option in ((stream_config, "test_examples"), (ppo_config, "test_episodes")):
        tested = make()
        agent = to_dict(tested)["agent"]
        untested = make(agent={**agent, option: 0})
        one, other = run(tested, [0, 3]), run(untested, [0, 3])
        for seed in (0, 3):
            assert any("retention/" in key for _, values in one[seed].lines for key in values)
            assert one[seed].untimed("retention/", "cost/") == other[seed].untimed()


def test_a_learner_without_methods_is_told_of_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*_: Any) -> None:
        raise AssertionError("told")

    made = Training(stream_config(), [0])
    monkeypatch.setattr(made.agent, "end_task", told)
    made.run({0: Lines()})


STREAM_METHODS: dict[str, list[Any]] = {
    entry.name: [entry.name]
    for entry in CONSOLIDATION
    if "supervised" in entry.load().agents and entry.source == "built in"
} | {"all": ["rehearsal", "lwf", "ewc", "si", "l2", "mas", "online-ewc", "lower-rate"]}
PPO_METHODS: dict[str, list[Any]] = {
    entry.name: [{"name": entry.name}]
    for entry in CONSOLIDATION
    if "ppo" in entry.load().agents and entry.source == "built in"
} | {"cloning+ewc": [{"name": "behaviour-cloning", "batch_size": 8}, "ewc"]}
EVERY = [(stream_config, name, methods) for name, methods in STREAM_METHODS.items()] + [
    (ppo_config, f"ppo-{name}", methods) for name, methods in PPO_METHODS.items()
]
every_method = pytest.mark.parametrize(
    ("make", "methods"), [(m, ms) for m, _, ms in EVERY], ids=[name for _, name, _ in EVERY]
)


def test_ppo_has_what_it_is_to_have() -> None:
    assert {"l2", "ewc", "behaviour-cloning"} <= PPO_METHODS.keys()


@every_method
def test_a_method_acts_from_the_second_task_on(make: Any, methods: list[Any]) -> None:
    """And a seed's run is the same alone and beside others."""
    plain, sinks = run(make(), [0]), run(make(consolidation=methods), [0, 5])
    first = [values for _, values in sinks[0].with_tag("task/index")]
    assert run(make(consolidation=methods), [5])[5].untimed() == sinks[5].untimed()
    before = [values for _, values in plain[0].with_tag("task/index")]
    if methods != ["from-scratch"]:
        key = "task/accuracy" if "task/accuracy" in before[0] else "task/return"
        assert first[0][key] == before[0][key]
    row = "retention/accuracy/0" if "retention/accuracy/0" in first[-1] else "retention/return/0"
    assert row in first[-1]
    if methods != ["lower-rate"]:
        assert first[-1]["cost/memory"] > 0
    assert sinks[0].untimed() != plain[0].untimed()


@every_method
def test_states_are_exact(make: Any, methods: list[Any]) -> None:
    """Stored examples, teachers and all: stopped amid a task, the rest is the same to the bit."""
    config = make(consolidation=methods, log_every=30 if make is stream_config else 256)
    stop = 150 if make is stream_config else 384
    whole, halves = ({seed: Lines() for seed in (0, 1)} for _ in range(2))
    training(config, [0, 1]).run(whole)
    made = training(config, [0, 1])
    for step in made.steps(halves):
        if step >= stop:
            break
    assert step == stop
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    again = training(config, [0, 1])
    again.load_state_dict(torch.load(file, weights_only=True))
    for _ in again.steps(halves):
        pass
    for seed in (0, 1):
        assert halves[seed].untimed() == whole[seed].untimed()


def test_memory_shows_what_rehearsal_costs() -> None:
    """64 float32 inputs and an int64 label for each of the examples so far."""
    full = run(stream_config(consolidation=["rehearsal"]), [0])[0]
    some = run(stream_config(consolidation=[{"name": "rehearsal", "capacity": 30}]), [0])[0]
    one = 64 * 4 + 8
    for sink, counts in ((full, (120, 180, 240)), (some, (30, 30, 30))):
        kept = [values["cost/memory"] for _, values in sink.with_tag("cost/memory")]
        assert kept == pytest.approx([count * one / 1e6 for count in counts])


def test_ppo_is_tested_on_the_tasks_so_far() -> None:
    sinks = run(ppo_config(), [0, 1])
    for sink in sinks.values():
        rows = sink.with_tag("retention/return/0")
        assert [values["task/index"] for _, values in rows] == [0.0, 1.0, 2.0]
        for known, (_, values) in enumerate(rows, start=1):
            returns = [v for k, v in values.items() if k.startswith("retention/return/")]
            assert len(returns) == known and all(1 <= value <= 500 for value in returns)
        assert "retention/forgetting" in rows[-1][1]


def test_a_test_is_of_the_frozen_policy_on_the_held_task() -> None:
    """Against episodes stepped one by one in an environment of its own under the same offset."""
    made = ControlTraining(ppo_config(), [2])
    made.run({2: Lines()})
    assert made._tests is not None
    values = made._tests.trials.values(0, 2)
    assert len(values) == 3 and np.array_equal(values[0], np.zeros(4))
    # What training met: the offset at work at its end is that of its last task.
    np.testing.assert_array_equal(made.envs.value[0], values[2])  # type: ignore[attr-defined]
    before = made.agent.population.rows.clone()
    import gymnasium as gym

    from clrl.seeding import derived_seed

    returns = made._tests.trials.returns(made.agent.answer, 1, values[1][None])[0]
    expected = []
    for episode in range(3):
        env = gym.make("CartPole-v1")
        # A world's lanes are CartPoles seeded for themselves.
        observation, _ = env.reset(seed=derived_seed(2, f"test/1/{episode}"))
        observation, _ = env.reset()
        total, over = 0.0, False
        while not over:
            seen = np.float32(observation + values[1])
            (action,) = made.agent.answer(seen[None])
            observation, reward, terminated, truncated, _ = env.step(int(action))
            total, over = total + float(reward), terminated or truncated
        expected.append(total)
    assert returns.mean() == pytest.approx(np.mean(expected), rel=0.05)
    assert torch.equal(made.agent.population.rows, before)


def test_tasks_that_come_again_are_the_same() -> None:
    config = ppo_config(benchmark={"name": "classic-control-cycle", "task_length": 100}, steps=1280)
    made = ControlTraining(config, [0])
    made.run({0: Lines()})
    assert made._tests is not None
    assert [int(value) for value in made._tests.trials.values(0, 7)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            ppo_config(benchmark={"name": "gymnasium", "id": "CartPole-v1"}),
            "agent.test_episodes: expected 0",
        ),
        (ppo_config(benchmark="drifting-cartpole"), "agent.test_episodes: expected 0"),
        (ppo_config(consolidation=["rehearsal"]), "consolidation: rehearsal is for supervised"),
        (stream_config(consolidation=["behaviour-cloning"]), "behaviour-cloning is for ppo"),
        (stream_config(consolidation=["from-scratch", "ewc"]), "from-scratch suits no other"),
        (
            stream_config(
                consolidation=["lwf"], benchmark={"name": "slow-regression", "task_length": 60}
            ),
            "lwf is for classification, got a stream of regression",
        ),
        (
            stream_config(
                agent={"name": "supervised", "batch_size": 1}, consolidation=["rehearsal"]
            ),
            "rehearsal.proportion: expected new and stored examples in a batch of 1",
        ),
    ],
)
def test_mistakes(config: RunConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        training(config, [0])


def test_methods_in_configurations() -> None:
    config = stream_config(consolidation=["l2", {"name": "ewc", "strength": 7}])
    assert [choice.name for choice in config.consolidation] == ["l2", "ewc"]
    assert config.consolidation[1].options.strength == 7.0
    assert resolve(to_dict(config), Place("again")) == config
    assert config_hash(config) != config_hash(stream_config(consolidation=["l2", "ewc"]))
    for raw, message in (
        ("ewc", "expected a list of methods, got 'ewc'"),
        (["ewc", "ewc"], "'ewc' is there twice"),
        (["ewd"], "did you mean 'ewc'"),
        ([{"name": "ewc", "lambda": 3}], "consolidation.ewc.lambda: unknown key"),
    ):
        with pytest.raises(UsageError, match=message):
            stream_config(consolidation=raw)


def test_methods_on_the_command_line() -> None:
    config, _ = read_run(
        ["--consolidation", "rehearsal", "online-ewc"]
        + ["--consolidation.online-ewc.strength", "3", "--consolidation.rehearsal.epoch", "growing"]
    )
    assert [choice.name for choice in config.consolidation] == ["rehearsal", "online-ewc"]
    assert config.consolidation[0].options.epoch == "growing"
    assert config.consolidation[1].options.strength == 3.0
    assert list(suites.single(config, "0").learners) == ["sgd+rehearsal+online-ewc"]


@pytest.mark.parametrize("name", [name for name in suite_files.names() if "forgetting" in name])
def test_suites_name_the_two_lines_or_are_control(name: str) -> None:
    made = suites.load(name)
    labels = {label: [m.name for m in c.consolidation] for label, c in made.learners.items()}
    assert labels["fine-tuning"] == []
    if "months" in name:
        assert labels["from-scratch"] == ["from-scratch"]
        assert {m for methods in labels.values() for m in methods} >= {
            *("l2", "lower-rate", "ewc", "online-ewc", "si", "mas", "lwf", "rehearsal"),
            "averaging",
        }
    assert "TODO" not in str(made.texts)


def test_a_suite_ends_with_table_and_picture(
    tmp_path: Path, capsys: Any, trained_here: None
) -> None:
    from clrl.cli.main import main

    text = (
        "benchmark: {name: months, data: digits, months: 2, base_length: 120, task_length: 60}\n"
        "agent: {name: supervised, batch_size: 6, test_examples: 50}\n"
        "network: {name: mlp, widths: [12]}\nsteps: 240\nlog_every: 60\nseeds: 0-1\n"
        "learners:\n  plain: {optimizer: adam}\n"
        "  replay: {optimizer: adam, consolidation: [rehearsal]}\n"
        "  above: {optimizer: adam, consolidation: [from-scratch]}\n"
    )
    (tmp_path / "small.yaml").write_text(text)
    out = tmp_path / "out"
    assert main(["suite", str(tmp_path / "small.yaml"), "--out", str(out), "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    for heading in ("earlier", "forgetting", "kept", "learned"):
        assert heading in shown
    picture = out / "forgetting-months.png"
    assert str(picture) in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
