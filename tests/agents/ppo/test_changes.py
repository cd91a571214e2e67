"""PPO tells add-ons of changes of task: when, and of whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorWrapper
from torch import Tensor

from clrl.agents.networks import MLP, Network
from clrl.agents.optim.base import AddOn
from clrl.agents.optim.members import Members
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions, PPOOptions
from clrl.agents.ppo import PPO
from clrl.envs.classic import VECTOR_ENVS

ROWS, UPDATES = 8, 4
"""Of a rollout, and those that are learned from it."""

CHANGES = {
    # Two environments a member: a task is over with the last that leaves it.
    (0, 0): [3, 24, 33, 38, 50],
    (0, 1): [5, 24, 33, 38],
    (1, 0): [10, 31, 40],
    (1, 1): [17, 31, 40],
}
"""Member and environment, and the rows that are the first of its next task."""

TOLD = [
    # Updates before, and whose task changed.
    (0 * UPDATES, [0]),  # at row 5, in the first rollout, before anything was learned
    (2 * UPDATES, [1]),  # at row 17, though one of its environments was ahead from row 10 on
    (3 * UPDATES, [0, 1]),  # at rows 24, the first of a rollout, and 31, the last
    (4 * UPDATES, [0]),  # at rows 33 and 38: twice before one update is once
    (5 * UPDATES, [1]),  # at row 40; of row 50, where half a member goes on, nobody is told
]


class Scripted(VectorWrapper):  # type: ignore[type-arg]
    """Says that tasks change at the rows of `CHANGES`."""

    rows = 0

    def step(self, actions: Any) -> Any:
        *found, info = self.env.step(actions)
        tasks = [sum(self.rows >= row for row in rows) for rows in CHANGES.values()]
        self.rows += 1
        return *found, {**info, "task": np.array(tasks, np.int64)}


class Noted(AddOn):
    """Writes down what it is told, and after how many updates."""

    needs_changes = True

    def __init__(self, members: Members, told: list[tuple[int, int, list[int]]]) -> None:
        super().__init__(members)
        self.told = told
        self.updates = 0
        self.number = len(members.generators)

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        self.updates += 1

    def at_change(self, members: Sequence[int]) -> None:
        self.told.append((self.updates, self.number, list(members)))


class Deaf(Noted):
    needs_changes = False


def begin(rule: UpdateRule, chunk_size: int = 2) -> tuple[PPO, Scripted]:
    plain = VECTOR_ENVS["CartPole-v1"](len(CHANGES), autoreset_mode=AutoresetMode.DISABLED)
    envs = Scripted(plain)

    def make(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> Network:
        return MLP(inputs, outputs, MLPOptions(widths=(4,)), generator, gain)

    options = PPOOptions(num_envs=2, num_steps=ROWS, batch_size=ROWS, epochs=2)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = PPO([0, 1], *spaces, make, rule, options, chunk_size)
    agent.reset(envs.reset(seed=list(range(len(CHANGES))))[0])
    return agent, envs


def train(agent: PPO, envs: Scripted, rollouts: int) -> None:
    for _ in range(rollouts):
        agent.iterate(envs, lambda *_: None, 1.0, 10**6)


def rule(addon: type[AddOn], told: list[Any]) -> UpdateRule:
    return UpdateRule(torch.optim.SGD, {"lr": 1e-3}, [(addon, {"told": told})])


def test_a_change_is_told_before_what_is_learned_next_and_of_its_member() -> None:
    told: list[tuple[int, int, list[int]]] = []
    train(*begin(rule(Noted, told)), rollouts=8)
    assert told == [(updates, 2, members) for updates, members in TOLD]


def test_members_that_learn_apart_are_told_of_their_own() -> None:
    """Each has an add-on of its own then, to which it is the first."""
    told: list[tuple[int, int, list[int]]] = []
    train(*begin(rule(Noted, told), chunk_size=1), rollouts=8)
    assert told == [(updates, 1, [0]) for updates, members in TOLD for _ in members]


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_whose_task_goes_on_is_left_alone(chunk_size: int) -> None:
    """In the rollout of row 17, in which member 1 alone changed; against one who hears nothing."""

    class Moved(Noted):
        def at_change(self, members: Sequence[int]) -> None:
            for tensor in self.members.tensors:
                tensor[members] += 1.0

    def parameters(addon: type[Noted]) -> list[Tensor]:
        agent, envs = begin(rule(addon, []), chunk_size)
        train(agent, envs, 1)
        agent.population.rows.zero_()  # of member 0 too, who was told in the first
        train(agent, envs, 2)
        return list(agent.population.rows)

    moved, still = parameters(Moved), parameters(Deaf)
    assert torch.equal(moved[0], still[0])
    assert float((moved[1] - still[1]).mean()) > 0.5


def test_a_frozen_member_is_told_nothing_more() -> None:
    told: list[tuple[int, int, list[int]]] = []
    agent, envs = begin(rule(Noted, told))
    train(agent, envs, 3)
    agent.population.frozen[0] = True
    train(agent, envs, 5)
    assert [(one, members) for one, _, members in told] == [
        *TOLD[:2], (3 * UPDATES, [1]), (5 * UPDATES, [1]),
    ]  # fmt: skip


def test_nobody_is_told_who_does_not_ask() -> None:
    told: list[tuple[int, int, list[int]]] = []
    train(*begin(rule(Deaf, told)), rollouts=4)
    assert not told


def test_what_was_not_told_yet_is_in_the_state() -> None:
    """A checkpoint between a rollout and its updates."""
    told: list[tuple[int, int, list[int]]] = []
    agent, envs = begin(rule(Noted, []))
    agent.rollout(envs)
    other, _ = begin(rule(Noted, told))
    other.load_state_dict(agent.state_dict())
    other.update(other.rollout(envs))
    assert told == [(0, 2, [0])]
