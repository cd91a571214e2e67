"""Penalties that look at what PPO collects: by hand, and in PPO's own updates."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from clrl.agents.actions import actions_of
from clrl.agents.calling import Call
from clrl.agents.networks import MLP
from clrl.agents.objective import Objective
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions, PPOOptions
from clrl.agents.penalties.base import Penalty
from clrl.agents.penalties.c_chain import CChain
from clrl.agents.penalties.infer import InFeR
from clrl.agents.penalties.l2_init import L2Init
from clrl.agents.penalties.parseval import Parseval
from clrl.agents.penalties.pfo import PFO
from clrl.agents.penalties.spectral import Spectral
from clrl.agents.penalties.wasserstein_init import WassersteinInit
from clrl.agents.ppo import PPO
from clrl.agents.ppo.actor_critic import ActorCritic
from clrl.errors import UsageError
from clrl.settings.config import resolve
from clrl.settings.values import Place
from clrl.training.dispatch import training

ADAM = UpdateRule(torch.optim.Adam, {"lr": 3e-3})
DISCRETE = gym.spaces.Discrete(3)
REAL = gym.spaces.Box(-1, 1, (2,))
Make = Callable[..., Penalty]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def part(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> MLP:
    return MLP(inputs, outputs, MLPOptions(widths=(6, 5), activation="tanh"), generator, gain)


def network(space: Any, seed: int, shared: bool = False) -> ActorCritic:
    return ActorCritic(4, actions_of(space), part, shared, 0.3, seeded(seed))


def own_loss(forward: Callable[[Tensor], Any], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    outputs, _, values = forward(x)
    return values.square().mean(), {"policy_loss": outputs.mean()}


class Held:
    """An actor-critic under one penalty, and another one that comes before it."""

    def __init__(self, space: Any, make: Make, shared: bool = False, **options: Any) -> None:
        self.old, self.new = network(space, 1, shared), network(space, 2, shared)
        self.penalty = make(self.new, **options)
        self.objective = Objective(self.new, own_loss, [self.penalty])
        self.kept = self.objective.begin(dict(self.old.named_parameters()), {})
        self.x = torch.randn(7, 4, generator=seeded(3))
        self.others = torch.randn(9, 4, generator=seeded(4))

    def __call__(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The term and its gradient with the new parameters; what is remembered goes on."""
        values = dict(self.new.named_parameters())
        with Call():
            terms, *_, self.kept = self.objective(values, self.kept, self.x, others=(self.others,))
        gradients = torch.autograd.grad(terms[0], list(values.values()), materialize_grads=True)
        return terms[0].detach(), dict(zip(values, gradients, strict=True))


def before_activation(own: ActorCritic, of: str, layer: int, x: Tensor) -> Tensor:
    for i in range(layer):
        x = torch.tanh(own.parts[of].linears[i](x))
    return own.parts[of].linears[layer](x)  # type: ignore[no-any-return]


# Features


@pytest.mark.parametrize(("shared", "of"), [(False, "actor"), (True, "shared")])
def test_pfo_by_hand(shared: bool, of: str) -> None:
    last, every = Held(DISCRETE, PFO, shared), Held(DISCRETE, PFO, shared, layers="all", strength=3)
    with torch.no_grad():
        apart = [
            before_activation(last.new, of, i, last.x) - before_activation(last.old, of, i, last.x)
            for i in (0, 1)
        ]
        both = torch.cat(apart, dim=1)
    torch.testing.assert_close(last()[0], apart[1].square().mean())
    torch.testing.assert_close(every()[0], 3 * both.square().mean())


def test_heads_and_critics_are_not_pulled() -> None:
    _, gradients = Held(DISCRETE, PFO)()
    pulled = {name for name, value in gradients.items() if value.any()}
    assert pulled == {f"parts.actor.linears.{i}.{p}" for i in (0, 1) for p in ("weight", "bias")}


def test_the_network_as_it_was_draws_nothing_and_writes_nothing() -> None:
    """Looked at in evaluation mode: dropout's masks and running statistics are the update's."""
    options = MLPOptions(widths=(6,), dropout=0.5, batch_norm=True)
    own = MLP(4, 2, options, seeded()).train()
    x, found = torch.randn(7, 4, generator=seeded(1)), []
    for penalties in ([], [PFO(own), CChain(own)]):
        objective = Objective(own, lambda f, x: (f(x).square().mean(), {}), penalties)
        kept = objective.begin(dict(own.named_parameters()), dict(own.named_buffers()))
        with Call() as call:
            *_, after = objective(dict(own.named_parameters()), kept, x)
        found.append((call.draws, after["norms.0.running_mean"]))
    (draws, mean), (same_draws, same_mean) = found
    assert draws
    assert draws == same_draws
    assert torch.equal(mean, same_mean)
    assert own.training


# Churn


def test_churn_of_choices_by_hand() -> None:
    """The cross-entropy of the policies before and after, on other examples than the update's."""
    held = Held(gym.spaces.MultiDiscrete([3, 2]), CChain, strength=2.0)
    held.kept["penalty/0/updates"] += 2
    with torch.no_grad():
        old, new = held.old(held.others)[0], held.new(held.others)[0]
        expected = torch.zeros(())
        for p, q in zip(old.split([3, 2], 1), new.split([3, 2], 1), strict=True):
            expected -= (p.softmax(1) * q.log_softmax(1)).sum(1).mean()
    term, gradients = held()
    torch.testing.assert_close(term, 2 * expected)
    pulled = {name for name, value in gradients.items() if value.any()}
    assert pulled == {name for name in gradients if name.startswith("parts.actor")}


def test_churn_of_real_actions_is_of_their_means() -> None:
    held = Held(REAL, CChain, strength=3.0)
    held.kept["penalty/0/updates"] += 2
    with torch.no_grad():
        apart = held.new(held.others)[0] - held.old(held.others)[0]
    term, gradients = held()
    torch.testing.assert_close(term, 3 * apart.square().mean())
    pulled = {name for name, value in gradients.items() if value.any()}
    assert pulled == {name for name in gradients if name.startswith("parts.actor")}


@pytest.mark.parametrize("space", [DISCRETE, REAL])
def test_where_nothing_changed_there_is_no_pull(space: Any) -> None:
    held = Held(space, CChain)
    held.kept["penalty/0/updates"] += 2
    held()
    _, gradients = held()
    for value in gradients.values():
        torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-6)


def test_the_first_two_updates_are_without_it() -> None:
    held = Held(DISCRETE, CChain)
    terms = [float(held()[0]) for _ in range(3)]
    assert terms[:2] == [0.0, 0.0]
    assert terms[2] > 0.5


def told(penalty: Penalty, memory: dict[str, Tensor], loss: float, term: float) -> float:
    """The coefficient after a rollout of four updates with this loss and this term."""
    memory["sums"].copy_(torch.tensor([4 * loss, 4 * term, 4.0]))
    penalty.collected({}, memory)
    return float(memory["coefficient"])


def test_the_coefficient_goes_by_the_losses() -> None:
    """0.2 beside 0.5: a target of 10000 is a coefficient of 4000, from the eleventh rollout on."""
    held = Held(DISCRETE, CChain)
    memory = held.penalty.begin(dict(held.old.named_parameters()))
    found = [told(held.penalty, memory, -0.2, 0.5) for _ in range(12)]
    assert found[:10] == [1.0] * 10
    assert found[10:] == pytest.approx([4000.0, 4000.0])
    held.penalty.collected({}, memory)  # nothing was learned in between
    assert float(memory["rollouts"]) == 12
    assert float(memory["coefficient"]) == pytest.approx(4000.0)


def test_means_are_over_the_latest_and_no_less_than_the_floor() -> None:
    held = Held(DISCRETE, CChain, window=2, warmup=0, target=1.0, floor=0.3, strength=7.0)
    memory = held.penalty.begin(dict(held.old.named_parameters()))
    assert float(memory["coefficient"]) == 7.0
    given = [(1.0, 0.5), (-3.0, 0.5), (-1.0, 1.0), (0.01, 1.0)]
    found = [told(held.penalty, memory, *one) for one in given]
    assert found == pytest.approx([2.0, 4.0, 2 / 0.75, 0.505])
    assert told(held.penalty, memory, 0.01, 1.0) == pytest.approx(0.3)


def test_without_a_target_the_coefficient_stays() -> None:
    held = Held(DISCRETE, CChain, target=0.0, warmup=0, strength=5.0)
    memory = held.penalty.begin(dict(held.old.named_parameters()))
    assert [told(held.penalty, memory, 1.0, 1.0) for _ in range(3)] == [5.0] * 3


# In PPO


def envs(members: int, name: str = "CartPole-v1") -> SyncVectorEnv:
    return SyncVectorEnv(
        [lambda: gym.make(name)] * (2 * members), autoreset_mode=AutoresetMode.DISABLED
    )


def begin(seeds: Sequence[int], *penalties: Any, name: str = "CartPole-v1", **options: Any) -> PPO:
    own = envs(len(seeds), name)
    agent = PPO(
        seeds,
        own.single_observation_space,
        own.single_action_space,
        part,
        ADAM,
        PPOOptions(**{"num_envs": 2, "num_steps": 16, "batch_size": 8, "epochs": 2, **options}),
        penalties=penalties,
    )
    agent.reset(own.reset(seed=[10 * seed + lane for seed in seeds for lane in (0, 1)])[0])
    agent.envs = own  # type: ignore[attr-defined]
    return agent


def learn(agent: PPO, rollouts: int = 1) -> dict[str, Tensor]:
    for _ in range(rollouts):
        results = agent.update(agent.rollout(agent.envs))  # type: ignore[attr-defined]
    return results


def test_the_first_minibatch_is_where_features_were() -> None:
    plain = begin([0], batch_size=32, epochs=1)
    held = begin([0], lambda net: PFO(net, 5.0), batch_size=32, epochs=1)
    learn(plain)
    assert learn(held)["penalty"].tolist() == [0.0]
    assert torch.equal(plain.population.rows, held.population.rows)
    again = begin([0], lambda net: PFO(net, 5.0), batch_size=32, epochs=2)
    assert float(learn(again)["penalty"]) > 0.0


def test_features_are_those_of_the_rollout_for_all_its_epochs() -> None:
    agent = begin([0, 1], PFO)
    for _ in range(2):
        rollout = agent.rollout(agent.envs)  # type: ignore[attr-defined]
        start = {name: value.clone() for name, value in agent.population.parameters().items()}
        agent.update(rollout)
        for name, value in start.items():
            if not name.startswith("parts.critic"):
                assert torch.equal(agent.population.kept[f"penalty/0/{name}"], value)
                assert not torch.equal(agent.population.parameters()[name], value)


@pytest.mark.parametrize("make", [PFO, CChain])
@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_without_strength_it_is_ppo(make: Make, name: str) -> None:
    """Minibatches too are in the same order, although others are drawn beside them."""
    plain, nothing = begin([0], name=name), begin([0], lambda n: make(n, strength=0.0), name=name)
    some = begin([0], lambda n: make(n, strength=5.0), name=name)
    for agent in (plain, nothing, some):
        learn(agent, 2)
    assert torch.equal(plain.population.rows, nothing.population.rows)
    assert not torch.equal(plain.population.rows, some.population.rows)


def test_others_are_all_of_the_rollout_in_another_order() -> None:
    seen: list[Tensor] = []

    class Looks(CChain):
        def begin(self, parameters: Any) -> Any:
            return {
                **super().begin(parameters),
                "inputs": torch.zeros(8, 4),
                "others": torch.zeros(8, 4),
            }

        def term(self, sight: Any, memory: Any) -> Tensor:
            memory["inputs"], (memory["others"],) = sight.inputs[0], sight.others
            return super().term(sight, memory)

    agent = begin([0], Looks, epochs=1)
    rollout = agent.rollout(agent.envs)  # type: ignore[attr-defined]
    learned, population = agent.population.learn, agent.population

    def one_by_one(*batches: Tensor, others: Tensor) -> dict[str, Tensor]:
        for i in range(batches[0].shape[1]):
            results = learned(*(b[:, i : i + 1] for b in batches), others=others[:, i : i + 1])
            seen.extend([population.kept["penalty/0/others"].clone(), batches[0][:, i]])
        return results

    population.learn = one_by_one  # type: ignore[method-assign]
    agent.update(rollout)
    others, inputs = (torch.cat(seen[i::2], dim=1)[0] for i in (0, 1))
    assert not torch.equal(others, inputs)
    assert sorted(others.tolist()) == sorted(inputs.tolist())


EVERY: dict[str, Make] = {
    "c-chain": lambda net: CChain(net, target=100.0, warmup=1),
    "pfo": PFO,
    "infer": lambda net: InFeR(net, scale=3.0),
    "parseval, diagonal": lambda net: Parseval(net, diagonal=True),
    "all others": lambda net: L2Init(net, resample=True),
}


@pytest.mark.parametrize("name", EVERY)
def test_members_are_their_own_and_come_back(name: str) -> None:
    among, alone = begin([0, 1], EVERY[name]), begin([1], EVERY[name])
    learn(among, 3)
    learn(alone, 3)
    assert torch.equal(among.population.rows[1], alone.population.rows[0])
    saved = io.BytesIO()
    torch.save(alone.state_dict(), saved)
    saved.seek(0)
    resumed = begin([1], EVERY[name])
    resumed.load_state_dict(torch.load(saved, weights_only=False))
    for agent in (alone, resumed):
        agent.reset(agent.envs.reset(seed=[7, 8])[0])  # type: ignore[attr-defined]
        learn(agent, 2)
    assert torch.equal(resumed.population.rows, alone.population.rows)


def test_several_at_once_train() -> None:
    made = [PFO, CChain, WassersteinInit, Parseval, Spectral, L2Init]
    agent = begin([0], *made)
    results = learn(agent, 2)
    assert float(results["penalty"]) > 0.0
    assert bool(agent.population.rows.isfinite().all())


@pytest.mark.parametrize("name", ["pfo", "c-chain"])
def test_a_stream_has_no_experience(name: str) -> None:
    config = resolve(
        {
            "benchmark": "slow-regression",
            "agent": "supervised",
            "penalties": [name],
            "steps": 64,
            "log_every": 64,
        },
        Place("run"),
    )
    with pytest.raises(UsageError, match=f"penalties: {name} goes by what an agent collects"):
        training(config, [0])
