"""The loop for control tasks: what is learned, what is written, when, and for whom."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clrl.cli.main import main
from clrl.errors import UsageError
from clrl.seeding import derived_seed
from clrl.settings.config import RunConfig, resolve
from clrl.settings.values import Place
from clrl.training.control import ControlTraining
from clrl.training.dispatch import training

PLUGINS = Path(__file__).parents[2] / "plugin_example"


class Lines:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: dict[str, float]) -> None:
        assert all(type(value) is float for value in values.values())
        self.lines.append((step, dict(values)))

    def of(self, key: str) -> list[tuple[int, float]]:
        return [(step, values[key]) for step, values in self.lines if key in values]

    def untimed(self) -> list[tuple[int, dict[str, float]]]:
        return [
            (step, {k: v for k, v in values.items() if not k.startswith("time/")})
            for step, values in self.lines
        ]


def config_agent() -> dict[str, Any]:
    return {"name": "ppo", "num_envs": 4, "num_steps": 32, "batch_size": 32, "epochs": 2}


def config(**raw: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "benchmark": {"name": "offset-cartpole", "task_length": 300},
        "agent": config_agent(),
        "network": {"name": "mlp", "widths": [16, 8], "activation": "tanh"},
        "optimizer": {"name": "adam", "lr": 1e-3},
        "steps": 1024,
        "log_every": 256,
        **raw,
    }
    return resolve(settings, Place("test"))


def run(settings: RunConfig, seeds: Sequence[int]) -> tuple[dict[int, Lines], dict[int, str]]:
    sinks = {seed: Lines() for seed in seeds}
    return sinks, training(settings, seeds).run(sinks, lambda done, total: None)


def test_lines_come_every_so_many_steps_with_all_that_is_measured() -> None:
    sinks, states = run(config(), [3, 4])
    assert states == {3: "finished", 4: "finished"}
    for sink in sinks.values():
        assert [step for step, _ in sink.of("online/episodes")] == [256, 512, 768, 1024]
        for key in (
            "online/return",
            "online/return_of_100",
            "online/episode_length",
            "task/return",
            "ppo/policy_loss",
            "ppo/value_loss",
            "ppo/entropy",
            "ppo/approx_kl",
            "ppo/clip_fraction",
            "ppo/explained_variance",
            "ppo/grad_norm",
            "plasticity/actor/dead_units",
            "plasticity/actor/dormant_units/layer_1",
            "plasticity/critic/effective_rank",
            "plasticity/critic/grad_norm",
            "plasticity/actor/weight_magnitude/output",
            "plasticity/critic/weight_change",
            "time/steps_per_second",
        ):
            assert sink.of(key), key
            assert all(math.isfinite(value) for _, value in sink.of(key)), key
    assert sinks[3].untimed() != sinks[4].untimed()


def test_every_task_is_written_once_and_the_last_too() -> None:
    sinks, _ = run(config(), [3])
    assert sinks[3].of("task/index") == [(300, 0), (600, 1), (900, 2), (1024, 3)]


def test_returns_are_those_of_the_episodes() -> None:
    """CartPole pays 1 a step: returns are lengths, and they add up to the steps."""
    sinks, _ = run(config(), [3])
    returns, lengths = sinks[3].of("online/return"), sinks[3].of("online/episode_length")
    assert returns == lengths
    counts = [count for _, count in sinks[3].of("online/episodes")]
    total = sum(n * mean for n, (_, mean) in zip(counts, returns, strict=True))
    # What the four lanes are at is not over.
    assert 0 <= 1024 - total < 4 * 200


def test_a_seed_is_the_same_alone_and_among_others() -> None:
    together, _ = run(config(), [5, 3, 9])
    alone, _ = run(config(), [3])
    assert together[3].untimed() == alone[3].untimed()


def test_a_diverging_member_is_frozen_and_marked() -> None:
    agent = {**config_agent(), "max_grad_norm": 0.0}
    settings = config(optimizer={"name": "sgd", "lr": 1e6}, agent=agent, steps=512)
    sinks, states = run(settings, [0, 1])
    assert set(states.values()) == {"diverged"}
    assert all(not sink.lines for sink in sinks.values())


def test_siblings_of_a_diverging_member_are_what_they_would_be() -> None:
    """One member's parameters are spoilt after the first iteration."""

    def trained(spoil: bool) -> tuple[dict[int, Lines], dict[int, str]]:
        one, sinks = ControlTraining(config(), [0, 1, 2]), {seed: Lines() for seed in range(3)}
        steps = one.steps(sinks)
        next(steps)
        if spoil:
            one.agent.population.rows[1] = 1e30
        for _ in steps:
            pass
        return sinks, one.run(sinks)

    sound, _ = trained(False)
    sinks, states = trained(True)
    assert states == {0: "finished", 1: "diverged", 2: "finished"}
    assert not sinks[1].lines
    for seed in (0, 2):
        assert sinks[seed].untimed() == sound[seed].untimed()


@pytest.mark.parametrize("reset", [False, True])
def test_goes_on_alike_from_a_saved_state(reset: bool) -> None:
    whole = Lines()
    settings = config(
        agent={**config_agent(), "reset_at_change": reset, "normalize_observations": reset},
        benchmark={"name": "offset-cartpole", "task_length": 300},
    )
    ControlTraining(settings, [3]).run({3: whole})
    first = ControlTraining(settings, [3])
    early, late = Lines(), Lines()
    steps = first.steps({3: early})
    while first.step < 512:
        next(steps)
    state = first.state_dict()
    assert json.loads(json.dumps(state["envs"])) == state["envs"]
    second = ControlTraining(settings, [3])
    second.load_state_dict(state)
    second.run({3: late})
    assert early.untimed() + late.untimed() == whole.untimed()
    beside = Lines()
    ControlTraining(settings, [2, 3]).run({2: Lines(), 3: beside})
    assert beside.untimed() == whole.untimed()


def test_resets_at_a_change_make_the_learner_new() -> None:
    settings = config(
        agent={**config_agent(), "reset_at_change": True},
        benchmark={"name": "offset-cartpole", "task_length": 512},
    )
    one = ControlTraining(settings, [3])
    steps = one.steps({3: Lines()})
    rows = []
    for _ in range(6):
        next(steps)
        rows.append(one.agent.population.rows.clone())
    # The change comes in the fifth iteration.
    moves = [float((b - a).abs().max()) for a, b in zip(rows, rows[1:], strict=False)]
    assert moves[3] > 5 * max(moves[:3])
    generator = torch.Generator().manual_seed(0)
    assert one.agent.population.rows.shape == rows[0].shape and generator is not None
    for group in one.agent.population._chunks[0].optimizer.base.state.values():
        assert float(group["step"]) == 2 * 2 * 4  # two iterations' updates: no more of the past


@pytest.mark.parametrize("length", [516, 572])
def test_what_was_done_before_a_change_is_not_learned_by_the_new(length: int) -> None:
    """Whatever it was, the update is the same."""
    settings = config(
        agent={**config_agent(), "reset_at_change": True},
        benchmark={"name": "offset-cartpole", "task_length": length},
    )
    one = ControlTraining(settings, [3, 4])
    steps = one.steps({3: Lines(), 4: Lines()})
    for _ in range(4):
        next(steps)
    agent = one.agent
    tasks: list[np.ndarray] = []
    rollout = agent.rollout(one.envs, lambda *step: tasks.append(step[-1]["task"].reshape(2, 4)))
    old = (np.array(tasks) == 0).any(axis=2).T  # [members, steps]: not all are in the new task
    assert old.any() and not old[:, -1].any()
    for member, seed in enumerate([3, 4]):
        # Steps up to the first of the new task are not for the new networks.
        first = int(old[member].sum())
        assert not rollout.valid[member, : first + 1].any()
        assert rollout.valid[member, first + 1 :].all()
        generator = torch.Generator().manual_seed(derived_seed(seed, "network/task-1"))
        fresh = agent._make(generator)
        for name, value in agent.population.parameters().items():
            assert torch.equal(value[member], fresh.get_parameter(name).detach())
    spoilt = replace(
        rollout,
        observations=rollout.observations.clone(),
        rewards=rollout.rewards.clone(),
        log_probs=rollout.log_probs.clone(),
        values=rollout.values.clone(),
    )
    for member, own in enumerate(old):
        for value in (spoilt.observations, spoilt.rewards, spoilt.log_probs, spoilt.values):
            value[member, : int(own.sum()) + 1] += 0.5
    orders = np.stack([agent._orders() for _ in range(2)], axis=1)
    state = agent.state_dict()["population"]
    kept = copy.deepcopy(state)
    agent.update(rollout, orders)
    learned = agent.population.rows.clone()
    agent.population.load_state_dict(kept)
    agent.update(spoilt, orders)
    assert torch.equal(agent.population.rows, learned)


def test_resets_at_a_change_make_the_normalisers_new() -> None:
    more = {"normalize_observations": True, "normalize_rewards": "sb3", "reset_at_change": True}
    settings = config(
        agent={**config_agent(), **more},
        benchmark={"name": "offset-cartpole", "task_length": 512},
    )
    one = ControlTraining(settings, [3, 4])
    steps = one.steps({3: Lines(), 4: Lines()})
    counts = []
    for _ in range(6):
        next(steps)
        normalizers = (one.agent._observations, one.agent._rewards)
        counts.append([normalizer.moments.count.round().tolist() for normalizer in normalizers])
    # Four environments by 32 steps an iteration, and the observations of the reset. The change
    # is seen at the first step of the fifth iteration, whose reward is of the learner before.
    observations, rewards = zip(*counts, strict=True)
    assert list(observations[:4]) == [[132] * 2, [260] * 2, [388] * 2, [516] * 2]
    assert observations[4:] == ([128] * 2, [256] * 2)
    assert rewards[4:] == ([124] * 2, [252] * 2)


def test_any_environment_of_gymnasium_by_its_id() -> None:
    benchmark = {"name": "gymnasium", "id": "Pendulum-v1"}
    sinks, _ = run(config(benchmark=benchmark, steps=1024), [3])
    assert sinks[3].of("ppo/entropy")
    assert not sinks[3].of("nothing")


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ({"agent": "supervised"}, "learns from streams; expected an agent such as ppo"),
        ({"benchmark": "permuted-digits"}, "acts in control tasks; expected an agent such as"),
        ({"benchmark": {"name": "gymnasium", "id": "Nope-v0"}}, "benchmark.id: Nope-v0"),
        ({"benchmark": {"name": "gymnasium", "id": "Taxi-v4"}}, "expected a Box with one axis"),
        ({"agent": {"name": "ppo", "batch_size": 60}}, "agent.batch_size: expected a divisor"),
    ],
)
def test_mistakes_are_one_line(raw: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line) as caught:
        training(config(**raw), [0])
    assert "\n" not in str(caught.value)


def test_an_agent_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_here: None
) -> None:
    monkeypatch.syspath_prepend(str(PLUGINS))
    words = ["run", "--agent", "clrl_example.agents:Reinforce", "--agent.num-envs", "8"]
    words += ["--benchmark", "switching-cartpole", "--optimizer", "adam", "--optimizer.lr", "1e-2"]
    words += ["--network.widths", "16", "--steps", "4096", "--log-every", "2048", "--seeds", "0-1"]
    assert main([*words, "--workers", "1", "--out", str(tmp_path / "out")]) == 0
    folders = sorted((tmp_path / "out").rglob("seed-*"))
    assert len(folders) == 2
    for folder in folders:
        assert json.loads((folder / "status.json").read_text())["state"] == "finished"
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        assert {"Reinforce/entropy", "online/return", "plasticity/network/dead_units"} <= set(last)
    assert np.isfinite(last["online/return"])
