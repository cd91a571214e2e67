"""Every method where tasks are shorter than a rollout, a window, a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from clrl.agents.consolidation.base import Consolidation, Learners, Method
from clrl.agents.consolidation.table import CONSOLIDATION
from clrl.agents.optim.optimizer_reset import AdamRel
from clrl.agents.optim.surgery import Surgery
from clrl.agents.optim.table import ADDONS
from clrl.agents.optim.units import UnitReset
from clrl.agents.penalties.table import PENALTIES
from clrl.settings.config import RunConfig, resolve, to_dict
from clrl.settings.values import Place
from clrl.training.dispatch import training

METHODS = [entry.name for entry in CONSOLIDATION if entry.source == "built in"]
FOR_PPO = [name for name in METHODS if "ppo" in CONSOLIDATION.find(name).load().agents]
FOR_STREAMS = [name for name in METHODS if "supervised" in CONSOLIDATION.find(name).load().agents]


class Lines:
    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.lines.append((step, dict(values)))

    def of(self, key: str) -> list[tuple[int, float]]:
        return [(step, line[key]) for step, line in self.lines if key in line]


def ppo(method: str, length: int, steps: int = 384, **more: Any) -> RunConfig:
    agent = {"name": "ppo", "num_envs": 4, "num_steps": 32, "batch_size": 32, "epochs": 2}
    raw = {
        "benchmark": {"name": "offset-cartpole", "task_length": length},
        "agent": {**agent, "test_episodes": 1, **more},
        "network": {"name": "mlp", "widths": [8], "activation": "tanh"},
        "optimizer": {"name": "adam", "lr": 1e-3},
        "consolidation": [method],
        "steps": steps,
        "log_every": 128,
    }
    return resolve(raw, Place("test"))


@pytest.mark.parametrize("length", [200, 40, 4], ids=["first rollout", "rollout", "step"])
@pytest.mark.parametrize("method", FOR_PPO)
def test_ppo_with_tasks_shorter_than_a_rollout_and_a_batch(method: str, length: int) -> None:
    sink, steps = Lines(), min(384, 20 * length)
    config = ppo(method, length, steps)
    assert training(config, [3]).run({3: sink}) == {3: "finished"}
    ends = [*range(length, steps, length), steps]
    assert sink.of("task/index") == [(end, float(i)) for i, end in enumerate(ends)]
    assert len(sink.of("cost/memory")) == len(ends)
    found = [value for _, line in sink.lines for key, value in line.items() if "task/re" not in key]
    assert np.isfinite(found).all()


@pytest.mark.parametrize("method", FOR_STREAMS)
def test_streams_with_tasks_of_one_batch(method: str) -> None:
    raw = {
        "benchmark": {"name": "permuted-tasks", "data": "digits", "num_tasks": 5, "task_length": 6},
        "agent": {"name": "supervised", "batch_size": 6, "test_examples": 20},
        "network": {"name": "mlp", "widths": [8]},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "consolidation": [method],
        "steps": 30,
        "log_every": 30,
    }
    sink = Lines()
    assert training(resolve(raw, Place("test")), [3]).run({3: sink}) == {3: "finished"}
    assert sink.of("task/index") == [(6 * (i + 1), float(i)) for i in range(5)]


def built_in(table: Any) -> list[str]:
    return [entry.name for entry in table if entry.source == "built in"]


def grouped() -> dict[str, list[dict[str, Any]]]:
    """All add-ons, together with those of their kind; at changes of task where they can."""
    found: dict[str, list[dict[str, Any]]] = {"units": [], "changes": [], "steps": []}
    for name in built_in(ADDONS):
        addon = ADDONS.find(name).load()
        usual, when, every = (
            addon.hears_changes(options) for options in ({}, {"when": "change"}, {"every": 0})
        )
        every = every and "every" in ADDONS.find(name).options_type().__dataclass_fields__
        told = {"when": "change"} if when and not usual else {"every": 0} if every else {}
        group = "changes" if told else "units" if issubclass(addon, UnitReset) else "steps"
        found[group].append({"name": name, **told})
    return found


AROUND: dict[str, dict[str, Any]] = {
    **{group: {"addons": addons} for group, addons in grouped().items()},
    "penalties": {"penalties": built_in(PENALTIES)},
    "reset_at_change": {"agent": {"reset_at_change": True}},
}


def test_at_changes_is_what_can_be() -> None:
    assert {one["name"] for one in AROUND["changes"]["addons"]} >= {
        "shrink-and-perturb", "head-reset", "full-reset", "dash", "fire", "optimizer-reset",
        "adam-rel",
    }  # fmt: skip


@pytest.mark.parametrize("name", AROUND)
def test_ppo_with_every_method_and_tasks_shorter_than_a_rollout(name: str) -> None:
    """Five tasks and a part of one in a rollout; the last rollout is shorter than a minibatch."""
    raw = to_dict(ppo("l2", 12, 140, num_steps=16, epochs=1, test_episodes=0))
    more = {**AROUND[name], "agent": {**raw["agent"], **AROUND[name].get("agent", {})}}
    loop: Any = training(resolve({**raw, "consolidation": [], **more}, Place("test")), [3])
    sink = Lines()
    assert loop.run({3: sink}) == {3: "finished"}
    ends = [*range(12, 140, 12), 140]
    assert sink.of("task/index") == [(end, float(i)) for i, end in enumerate(ends)]
    # Without an episode that ended, or a step to learn from, some things are not known.
    unknown = ("task/return", "ppo/explained_variance")
    found = [value for _, line in sink.lines for key, value in line.items() if key not in unknown]
    assert np.isfinite(found).all() and bool(loop.agent.population.rows.isfinite().all())
    for addon in loop.agent.population._chunks[0].optimizer.addons:
        if isinstance(addon, Surgery):  # once before each of three updates; and at each rollout
            times = 6 if isinstance(addon, AdamRel) else 3
            assert addon.state_dict()["done"].tolist() == [addon.times or times]


@pytest.mark.parametrize("name", AROUND)
def test_streams_with_every_method_and_tasks_of_one_batch(name: str) -> None:
    more = dict(AROUND[name])
    if "penalties" in more:
        more["penalties"] = [one for one in more["penalties"] if one not in ("pfo", "c-chain")]
    raw = {
        "benchmark": {"name": "permuted-digits", "task_length": 6},
        "network": {"name": "mlp", "widths": [8]},
        "optimizer": {"name": "adam", "lr": 0.01},
        "steps": 33,  # the last batch is of three
        "log_every": 33,
        **more,
        "agent": {"name": "supervised", "batch_size": 3, **more.get("agent", {})},
    }
    sink = Lines()
    loop: Any = training(resolve(raw, Place("test")), [3])
    assert loop.run({3: sink}) == {3: "finished"}
    assert sink.of("task/index") == [(6 * (i + 1), float(i)) for i in range(5)] + [(33, 5.0)]
    found = [value for _, line in sink.lines for value in line.values()]
    assert np.isfinite(found).all()
    for addon in loop.agent.population._chunks[0].optimizer.addons:
        if isinstance(addon, Surgery):
            assert addon.state_dict()["done"].tolist() == [addon.times or 5]


class Kept(Method):
    """Keeps what it is given."""

    agents = ("ppo",)

    def __init__(self, learners: Learners, examples: int = 1000) -> None:
        super().__init__(learners)
        self.examples = examples
        self.given: list[tuple[int, torch.Tensor]] = []

    def consolidate(self, members: Any, examples: Any) -> None:
        for member, (observations, _) in zip(members, examples, strict=True):
            self.given.append((member, observations))


@pytest.mark.parametrize(("length", "examples"), [(40, 1000), (200, 1000), (200, 30)])
def test_what_is_kept_are_the_tasks_own_transitions(length: int, examples: int) -> None:
    """The last observations before the change, and none from after it, for two members apart."""
    loop: Any = training(ppo("l2", length), [0, 1])
    kept = Kept(Any, examples)  # type: ignore[arg-type]
    loop.agent.consolidation = Consolidation([kept], 2)
    seen: list[torch.Tensor] = []
    act = loop.agent.act

    def noted(observations: torch.Tensor, noise: torch.Tensor) -> Any:
        seen.append(observations.clone())
        return act(observations, noise)

    loop.agent.act = noted
    rows: list[torch.Tensor] = []
    loop.agent.reset(loop.envs.reset(seed=list(range(8)))[0])
    for _ in range(3):
        loop.agent.iterate(loop.envs, lambda *_: rows.append(seen[-1]), 1.0, 10**6)
    per_task = length // 4
    ends = range(per_task, 96, per_task)
    assert len(kept.given) == 2 * len(ends)
    for number, end in enumerate(ends):
        for member in (0, 1):
            who, observations = kept.given[2 * number + member]
            expected = torch.cat([row[member] for row in rows[end - per_task : end]])[-examples:]
            assert who == member and torch.equal(observations, expected)


def test_examples_of_lanes_that_are_ahead_wait_for_the_end_of_their_task() -> None:
    kept = Kept(Any, 3)  # type: ignore[arg-type]
    all_of = Consolidation([kept], 1)
    x = torch.arange(8.0).view(1, 8, 1)
    all_of.note(x, x, tasks=np.array([[0, 0, 0, 1, 0, 1, 1, 1]]))
    all_of.end_task([0], [1])
    assert kept.given[0][1].flatten().tolist() == [1, 2, 4]
    saved = all_of.state_dict()
    other = Consolidation([again := Kept(Any, 3)], 1)  # type: ignore[arg-type]
    saved["methods"] = [{}]
    other.load_state_dict(saved)
    for one, own in ((all_of, kept), (other, again)):
        one.end_task([0], [2])
        assert own.given[-1][1].flatten().tolist() == [5, 6, 7]
        count = len(own.given)
        one.end_task([0], [3])  # of which nothing was seen
        assert len(own.given) == count


# Tests of earlier tasks


def first_task(sink: Lines) -> list[float]:
    return [value for _, value in sink.of("retention/return/0")]


def test_a_test_does_not_fall_where_no_weight_changes() -> None:
    """The learner's statistics move with every offset; those of a task stay as they were."""
    raw: dict[str, Any] = {
        "benchmark": {"name": "offset-cartpole", "task_length": 1024, "std": 5.0},
        "agent": {
            **{"name": "ppo", "num_envs": 4, "num_steps": 64, "batch_size": 64, "epochs": 8},
            **{"normalize_observations": True, "test_episodes": 4},
        },
        "network": {"name": "mlp", "widths": [16], "activation": "tanh"},
        "optimizer": {"name": "adam", "lr": 0.01},
        "steps": 4096,
        "log_every": 1024,
    }

    def tested(statistics: str) -> list[float]:
        sink = Lines()
        settings = {**raw, "agent": {**raw["agent"], "test_statistics": statistics}}
        loop: Any = training(resolve(settings, Place("test")), [0])
        learn = loop.agent.population.learn

        def only_in_the_first(*batches: Any, **others: Any) -> Any:
            before = loop.agent.population.rows.clone()
            found = learn(*batches, **others)
            if loop.step >= 768:  # the last update of task 0 leaves all as it was, too
                loop.agent.population.rows.copy_(before)
            return found

        loop.agent.population.learn = only_in_the_first
        loop.run({0: sink})
        return first_task(sink)

    own, present = tested("task"), tested("present")
    assert len(own) == len(present) == 4
    assert own == [own[0]] * 4
    assert own[0] == present[0] and present[-1] != present[0]


# Norms of gradients


@pytest.mark.parametrize("bound", [0.5, 0.0])
def test_the_loss_and_the_whole_have_norms_of_their_own(bound: float) -> None:
    """A penalty of a great strength pulls hard, and the gradient of the loss is what it is."""

    def last(strength: float) -> dict[str, float]:
        sink, raw = Lines(), to_dict(ppo("l2", 128, 512, max_grad_norm=bound))
        settings = {**raw, "consolidation": [{"name": "l2", "strength": strength}]}
        training(resolve(settings, Place("test")), [1]).run({1: sink})
        return sink.lines[-1][1]

    none, much = last(0.0), last(1e4)
    names = [f"plasticity/{part}/{{}}grad_norm" for part in ("actor", "critic")]
    names += ["plasticity/critic/{}grad_norm/layer_1"]
    names += ["ppo/{}grad_norm"] if bound else []
    for name in names:
        assert none[name.format("")] == pytest.approx(none[name.format("total_")], rel=1e-5)
        assert much[name.format("total_")] != pytest.approx(much[name.format("")], rel=1e-2)


def test_norms_of_streams_are_apart_too() -> None:
    def found(strength: float) -> dict[str, float]:
        raw = {
            "benchmark": {"name": "permuted-digits", "task_length": 20},
            "agent": {"name": "supervised", "diagnose_every": 10},
            "network": {"name": "mlp", "widths": [8]},
            "optimizer": {"name": "sgd", "lr": 1e-6},
            "penalties": [{"name": "l2-init", "strength": strength, "resample": True}],
            "steps": 40,
            "log_every": 40,
        }
        sink = Lines()
        training(resolve(raw, Place("test")), [1]).run({1: sink})
        return {key: value for _, line in sink.lines for key, value in line.items()}

    none, much = found(0.0), found(1e4)
    for layer in ("", "/layer_1"):
        own, whole = (f"plasticity/network/{kind}grad_norm{layer}" for kind in ("", "total_"))
        assert none[own] == pytest.approx(none[whole], rel=1e-5)
        assert much[whole] > 100 * much[own]


def test_mas_holds_actor_critic_and_spread() -> None:
    """Each parameter's importance is the mean of abs(d ||f(x)||^2 / dw), by autograd."""
    raw: Any = to_dict(ppo("mas", 10**6))
    raw["benchmark"] = {"name": "gymnasium", "id": "Pendulum-v1"}
    raw["agent"]["test_episodes"] = 0
    loop: Any = training(resolve(raw, Place("test")), [0])
    agent = loop.agent
    (mas,) = agent.consolidation.methods
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    network = agent.population.module(0)
    with torch.no_grad():
        network.spread += 0.3
        agent.population.parameters()["spread"] += 0.3
    found = agent.population.views_of(mas.importance(0, (x,))[None])
    expected = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for one in x:
        outputs, spread, value = network(one[None])
        total = (outputs**2).sum() + (spread.exp() ** 2).sum() + (value**2).sum()
        for name, gradient in zip(
            expected, torch.autograd.grad(total, network.parameters()), strict=True
        ):
            expected[name] += gradient.abs() / 5
    for name, value in expected.items():
        torch.testing.assert_close(found[name][0], value, rtol=1e-4, atol=1e-6)
        assert (value > 0).any(), name
