"""PPO: Stable-Baselines3's numbers, members that know nothing of each other, learning."""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray
from torch import Tensor, nn

from clrl.agents.actions import actions_of
from clrl.agents.engine.build import library
from clrl.agents.engine.plan import EngineName
from clrl.agents.networks import MLP, Network
from clrl.agents.optim.continual_backprop import ContinualBackprop
from clrl.agents.optim.dash import DASH
from clrl.agents.optim.fire import FIRE
from clrl.agents.optim.muon import Muon
from clrl.agents.optim.optimizer_reset import AdamRel, OptimizerReset
from clrl.agents.optim.partial_resets import CalibratedPartialResets
from clrl.agents.optim.redo import ReDo
from clrl.agents.optim.regrama import ReGraMa
from clrl.agents.optim.resets import FullReset, HeadReset
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.self_normalized_resets import SelfNormalizedResets
from clrl.agents.optim.shrink_perturb import ShrinkAndPerturb
from clrl.agents.optim.trac import TRAC
from clrl.agents.optim.upgd import UPGD
from clrl.agents.options import MLPOptions, PPOOptions
from clrl.agents.ppo import PPO, Rollout, gae
from clrl.agents.ppo.loss import make_loss
from clrl.envs.classic import VECTOR_ENVS
from clrl.envs.classic.base import ClassicVectorEnv
from clrl.errors import UsageError
from clrl.seeding import derived_seed

Envs = VectorEnv[Any, Any, Any]
NO_RESET: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}
ADAM = UpdateRule(torch.optim.Adam, {"lr": 3e-4, "eps": 1e-5})
ENGINE: EngineName = "replay"


@pytest.fixture(params=["replay", "auto"])
def engines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once by operations of torch, and once by compiled code where that knows the learner."""
    if request.param == "auto" and library()[0] is None:
        pytest.skip(f"no compiled code: {library()[1]}")
    monkeypatch.setitem(globals(), "ENGINE", request.param)


class Match(gym.Env[NDArray[np.float32], Any]):
    """Do what you are told: the observation says which action is worth 1.

    Args:
        kind: of actions: one choice of 3, choices of 3 and 2, or a number.
        length: steps after which an episode is cut.
    """

    def __init__(self, kind: str = "discrete", length: int = 10) -> None:
        self._length = length
        self._sizes = {"discrete": [3], "multi-discrete": [3, 2], "continuous": [1]}[kind]
        self._continuous = kind == "continuous"
        self.observation_space = spaces.Box(-1.0, 1.0, (sum(self._sizes),))
        self.action_space = {
            "discrete": spaces.Discrete(3),
            "multi-discrete": spaces.MultiDiscrete([3, 2]),
            "continuous": spaces.Box(-1.0, 1.0, (1,)),
        }[kind]

    def _task(self) -> NDArray[np.float32]:
        if self._continuous:
            self._wanted = self.np_random.uniform(-0.5, 0.5, 1)
            return self._wanted.astype(np.float32)
        self._wanted = self.np_random.integers(self._sizes)
        rows = [np.eye(n)[i] for n, i in zip(self._sizes, self._wanted, strict=True)]
        return np.concatenate(rows).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self._step = 0
        return self._task(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._continuous:
            reward = 1.0 - float(np.abs(action - self._wanted).sum())
        else:
            reward = float(np.mean(np.reshape(action, -1) == self._wanted))
        self._step += 1
        return self._task(), reward, False, self._step >= self._length, {}


def match_envs(lanes: int, kind: str = "discrete", length: int = 10) -> Envs:
    return SyncVectorEnv([lambda: Match(kind, length)] * lanes, **NO_RESET)


def begin(
    seeds: Sequence[int],
    envs: Envs,
    rule: UpdateRule = ADAM,
    chunk_size: int | None = 8,
    widths: tuple[int, ...] = (64, 64),
    **options: Any,
) -> PPO:
    """Learners, with the environments just reset: every lane's seed is of its member."""
    lanes = envs.num_envs // len(seeds)

    def make(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> Network:
        settings = MLPOptions(widths=widths, activation="tanh", init="orthogonal")
        return MLP(inputs, outputs, settings, generator, gain)

    agent = PPO(
        seeds,
        envs.single_observation_space,
        envs.single_action_space,
        make,
        rule,
        PPOOptions(num_envs=lanes, **options),
        chunk_size,
        engine=ENGINE,
    )
    lane_seeds = [derived_seed(seed, f"envs/{lane}") for seed in seeds for lane in range(lanes)]
    agent.reset(envs.reset(seed=lane_seeds)[0])
    return agent


# Stable-Baselines3


class Body(nn.Module):
    """A features extractor for Stable-Baselines3: what its actor and critic then share."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 64) -> None:
        super().__init__()
        self.features_dim = features_dim
        inputs = observation_space.shape[0]
        self.layers = nn.Sequential(
            nn.Linear(inputs, features_dim), nn.Tanh(), nn.Linear(features_dim, 64), nn.Tanh()
        )

    def forward(self, observations: Tensor) -> Tensor:
        return self.layers(observations)  # type: ignore[no-any-return]


def reference(env: Callable[[], gym.Env[Any, Any]], steps: int = 64, **settings: Any) -> Any:
    """A learner of Stable-Baselines3 with 4 environments, ready to collect and train."""
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.vec_env import DummyVecEnv

    model = sb3.PPO(
        "MlpPolicy", DummyVecEnv([env] * 4), n_steps=steps, seed=0, device="cpu", **settings
    )
    model._setup_learn(10**6)
    return model


def collect(model: Any) -> None:
    from stable_baselines3.common.callbacks import CallbackList

    callback = CallbackList([])
    callback.init_callback(model)
    buffer = model.rollout_buffer
    assert model.collect_rollouts(model.env, callback, buffer, buffer.buffer_size)


def weights(model: Any) -> dict[str, Tensor]:
    """The parameters of a learner of Stable-Baselines3, under our names and stacked as ours."""
    theirs = dict(model.policy.state_dict())
    ours: dict[str, Tensor] = {}
    shared = "features_extractor.layers.0.weight" in theirs
    for kind in ("weight", "bias"):
        actor, critic = theirs[f"action_net.{kind}"], theirs[f"value_net.{kind}"]
        for i in (0, 1):
            if shared:
                name = f"features_extractor.layers.{2 * i}.{kind}"
                ours[f"parts.shared.linears.{i}.{kind}"] = theirs[name]
                continue
            for part, short in (("actor", "policy"), ("critic", "value")):
                name = f"mlp_extractor.{short}_net.{2 * i}.{kind}"
                ours[f"parts.{part}.linears.{i}.{kind}"] = theirs[name]
        if shared:
            ours[f"parts.shared.linears.2.{kind}"] = torch.cat([actor, critic])
        else:
            ours[f"parts.actor.linears.2.{kind}"] = actor
            ours[f"parts.critic.linears.2.{kind}"] = critic
    if "log_std" in theirs:
        ours["spread"] = theirs["log_std"]
    return {name: value.detach().clone() for name, value in ours.items()}


def take_weights(agent: PPO, model: Any) -> None:
    """Give every member the weights of a learner of Stable-Baselines3."""
    values = weights(model)
    parameters = agent.population.parameters()
    assert set(parameters) == set(values)
    for name, value in values.items():
        parameters[name].copy_(value.expand_as(parameters[name]))


def give_weights(agent: PPO, model: Any) -> None:
    """Give a learner of Stable-Baselines3, with actor and critic apart, the first member's."""
    own = {name: value[0].clone() for name, value in agent.population.parameters().items()}
    theirs = {}
    for kind in ("weight", "bias"):
        for part, short in (("actor", "policy"), ("critic", "value")):
            for i in (0, 1):
                name = f"mlp_extractor.{short}_net.{2 * i}.{kind}"
                theirs[name] = own[f"parts.{part}.linears.{i}.{kind}"]
        theirs[f"action_net.{kind}"] = own[f"parts.actor.linears.2.{kind}"]
        theirs[f"value_net.{kind}"] = own[f"parts.critic.linears.2.{kind}"]
    if "spread" in own:
        theirs["log_std"] = own["spread"]
    model.policy.load_state_dict(theirs)


def experience_of(model: Any, members: int) -> Rollout:
    """What a learner of Stable-Baselines3 collected, for each of several members.

    It resets at once and adds the value of an episode's last observation, where the episode was
    cut, to the reward: so every end is a termination here, and every step one.
    """
    buffer = model.rollout_buffer
    starts = np.concatenate([buffer.episode_starts[1:], model._last_episode_starts[None]])
    with torch.no_grad():
        last = model.policy.predict_values(model.policy.obs_to_tensor(model._last_obs)[0])
    ended = starts.astype(np.bool_)

    def own(values: Any) -> Tensor:
        return torch.as_tensor(values)[None].expand(members, *values.shape).clone()

    return Rollout(
        observations=own(buffer.observations),
        actions=own(buffer.actions.astype(np.float32)),
        log_probs=own(buffer.log_probs),
        values=own(buffer.values),
        rewards=own(buffer.rewards),
        terminated=own(ended),
        truncated=own(np.zeros_like(ended)),
        valid=own(np.ones_like(ended)),
        last_values=own(last.flatten().numpy()),
    )


def train(model: Any, orders: NDArray[np.int64]) -> dict[str, float]:
    """One update of Stable-Baselines3's with transitions in these orders; what it logs."""
    with mock.patch("numpy.random.permutation", side_effect=list(orders)):
        model.train()
    logged = model.logger.name_to_value
    return {key.split("/")[1]: float(value) for key, value in logged.items()}


def assert_same_update(agent: PPO, rollout: Rollout, model: Any) -> dict[str, Tensor]:
    """Update both; compare parameters and what is logged. Returns what ours gives."""
    options = agent.options
    rng = np.random.default_rng(0)
    size = options.num_envs * options.num_steps
    orders = np.stack([rng.permutation(size) for _ in range(options.epochs)])
    results = agent.update(rollout, np.stack([orders] * len(agent.seeds)))
    before = weights(model)
    logged = train(model, orders)
    expected = weights(model)
    assert any(not torch.equal(value, before[name]) for name, value in expected.items())
    for name, value in agent.population.parameters().items():
        torch.testing.assert_close(
            value, expected[name].expand_as(value), rtol=0, atol=1e-5, msg=lambda m, n=name: n + m
        )
    theirs = {
        "policy_loss": logged["policy_gradient_loss"],
        "value_loss": logged["value_loss"],
        "entropy": -logged["entropy_loss"],
        "clip_fraction": logged["clip_fraction"],
        "explained_variance": logged["explained_variance"],
    }
    if options.epochs == 1:  # they log the last epoch's alone
        theirs["approx_kl"] = logged["approx_kl"]
    for member in range(len(agent.seeds)):
        for name, number in theirs.items():
            got = results[name][member].item()
            assert got == pytest.approx(number, rel=1e-4, abs=1e-5), name
        losses = results["losses"][member]
        last = losses[losses != 0][-1].item()
        assert last == pytest.approx(logged["loss"], rel=1e-4, abs=1e-5)
    return results


def cart_pole() -> gym.Env[Any, Any]:
    return gym.make("CartPole-v1")


def pendulum() -> gym.Env[Any, Any]:
    return gym.make("Pendulum-v1", max_episode_steps=25)  # several cuts in a rollout


def two_choices() -> gym.Env[Any, Any]:
    return gym.wrappers.TimeLimit(Match("multi-discrete", 10**6), 17)


CLIPPED = {"value_clip": "sb3", "value_clip_range": 0.01}
CASES: dict[str, tuple[Callable[[], gym.Env[Any, Any]], dict[str, Any]]] = {
    "discrete": (cart_pole, {}),
    "continuous": (pendulum, {}),
    "multi-discrete": (two_choices, {"entropy_coefficient": 0.01}),
    "continuous, one epoch": (pendulum, {"epochs": 1, "batch_size": 32, "clip_range": 0.05}),
    "discrete, values clipped": (cart_pole, {**CLIPPED, "entropy_coefficient": 0.02}),
    "continuous, values clipped": (pendulum, {**CLIPPED, "entropy_coefficient": 0.02}),
    "discrete, raw advantages": (
        cart_pole,
        {"normalize_advantages": "none", "gamma": 0.9, "gae_lambda": 1.0},
    ),
    "continuous, raw advantages": (
        pendulum,
        {"normalize_advantages": "none", "value_coefficient": 1.3, "clip_range": 0.1},
    ),
    "discrete, short gradients": (cart_pole, {"max_grad_norm": 0.01}),
    "continuous, gradients as they are": (pendulum, {"max_grad_norm": 0.0, "gae_lambda": 0.8}),
}


def both(
    env: Callable[[], gym.Env[Any, Any]],
    options: dict[str, Any],
    lr: float = 3e-4,
    members: int = 2,
    **settings: Any,
) -> tuple[PPO, Any]:
    """A learner of ours and one of Stable-Baselines3 with the same options."""
    defaults = {"num_steps": 64, "batch_size": 64, "epochs": 4}
    given = PPOOptions(num_envs=4, **{**defaults, **options})
    model = reference(
        env,
        given.num_steps,
        learning_rate=lr,
        batch_size=given.batch_size,
        n_epochs=given.epochs,
        gamma=given.gamma,
        gae_lambda=given.gae_lambda,
        clip_range=given.clip_range,
        clip_range_vf=None if given.value_clip == "none" else given.value_clip_range,
        normalize_advantage=given.normalize_advantages == "minibatch",
        ent_coef=given.entropy_coefficient,
        vf_coef=given.value_coefficient,
        max_grad_norm=given.max_grad_norm or np.inf,
        target_kl=given.target_kl,
        **settings,
    )
    rule = UpdateRule(torch.optim.Adam, {"lr": lr, "eps": 1e-5})
    envs = SyncVectorEnv([env] * (4 * members), **NO_RESET)
    agent = begin(range(members), envs, rule, **{**defaults, **options})
    return agent, model


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize(("env", "options"), CASES.values(), ids=CASES)
def test_an_update_is_that_of_stable_baselines3(
    env: Callable[[], gym.Env[Any, Any]], options: dict[str, Any]
) -> None:
    agent, model = both(env, options)
    take_weights(agent, model)
    collect(model)
    rollout = experience_of(model, 2)
    assert rollout.terminated.any()
    advantages, returns = gae(rollout, agent.options.gamma, agent.options.gae_lambda)
    for value, expected in ((advantages, "advantages"), (returns, "returns")):
        theirs = torch.from_numpy(getattr(model.rollout_buffer, expected))
        torch.testing.assert_close(value, theirs.expand_as(value), rtol=1e-5, atol=1e-4)
    results = assert_same_update(agent, rollout, model)
    assert results["losses"].shape == (2, agent.options.epochs * 256 // agent.options.batch_size)
    if agent.options.max_grad_norm == 0.01:
        assert (results["grad_norm"] > 0.01).all()  # the bound was one


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize(
    ("env", "target_kl"), [(cart_pole, 1e-3), (pendulum, 1e-3), (cart_pole, 1e3)]
)
def test_an_update_ends_early_where_that_of_stable_baselines3_does(
    env: Callable[[], gym.Env[Any, Any]], target_kl: float
) -> None:
    agent, model = both(env, {"target_kl": target_kl, "entropy_coefficient": 0.01}, lr=2e-3)
    take_weights(agent, model)
    collect(model)
    results = assert_same_update(agent, experience_of(model, 2), model)
    taken = (results["losses"] != 0).sum(dim=1)
    if target_kl < 1:
        assert (taken > 1).all() and (taken < 16).all()
        assert model._n_updates < 4
    else:
        assert (taken == 16).all()


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("env", [cart_pole, pendulum])
def test_an_update_of_a_shared_network_is_that_of_stable_baselines3(
    env: Callable[[], gym.Env[Any, Any]],
) -> None:
    policy = {"features_extractor_class": Body, "net_arch": [], "share_features_extractor": True}
    agent, model = both(env, {"shared": True}, policy_kwargs=policy)
    take_weights(agent, model)
    collect(model)
    assert_same_update(agent, experience_of(model, 2), model)


@pytest.mark.usefixtures("engines")
def test_several_updates_in_a_row_are_those_of_stable_baselines3() -> None:
    agent, model = both(cart_pole, {"epochs": 2}, members=1)
    take_weights(agent, model)
    for _ in range(3):
        collect(model)
        assert_same_update(agent, experience_of(model, 1), model)


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("kind", ["continuous", "multi-discrete", "discrete"])
def test_our_own_rollout_trains_stable_baselines3_alike(kind: str) -> None:
    """The other way about: our weights, actions, log-probabilities and values."""
    agent, model = both(lambda: Match(kind, 1000), {}, members=1)
    give_weights(agent, model)
    envs = match_envs(4, kind, 1000)
    agent.reset(envs.reset(seed=5)[0])
    rollout = agent.rollout(envs)
    assert rollout.valid.all() and not (rollout.terminated | rollout.truncated).any()
    assert rollout.final_values is None
    own = {name: value[0] for name, value in vars(rollout).items() if value is not None}
    one = Rollout(**own)
    observations, actions = one.observations.flatten(0, 1), one.actions.flatten(0, 1)
    with torch.no_grad():
        taken = actions[:, 0] if kind == "discrete" else actions
        values, log_probs, _ = model.policy.evaluate_actions(observations, taken)
    torch.testing.assert_close(one.values.flatten(), values.flatten(), rtol=0, atol=1e-5)
    torch.testing.assert_close(one.log_probs.flatten(), log_probs, rtol=0, atol=1e-5)
    buffer = model.rollout_buffer
    buffer.reset()
    for step in range(64):
        buffer.add(
            one.observations[step].numpy(),
            one.actions[step].numpy(),
            one.rewards[step].numpy(),
            np.full(4, step == 0),
            one.values[step],
            one.log_probs[step],
        )
    buffer.compute_returns_and_advantage(one.last_values, np.zeros(4, np.bool_))
    assert_same_update(agent, rollout, model)


# Advantages


def random_rollout(members: int, steps: int, lanes: int, seed: int = 0) -> Rollout:
    """Numbers for experience in which episodes end in both ways."""
    rng = np.random.default_rng(seed)
    shape = (members, steps, lanes)
    kind = torch.from_numpy(rng.random(shape))
    numbers = torch.from_numpy(rng.standard_normal((6, *shape)).astype(np.float32))
    last = torch.from_numpy(rng.standard_normal((members, lanes)).astype(np.float32))
    return Rollout(
        numbers[4:].permute(1, 2, 3, 0),
        numbers[:1].permute(1, 2, 3, 0),
        numbers[0],
        numbers[1],
        numbers[2],
        terminated=kind < 0.12,
        truncated=(kind > 0.08) & (kind < 0.25),  # some both: then there is no future
        valid=torch.ones(shape, dtype=torch.bool),
        last_values=last,
        final_values=numbers[3],
    )


@pytest.mark.parametrize(("gamma", "decay"), [(0.99, 0.95), (0.9, 0.0), (1.0, 1.0), (0.5, 0.7)])
def test_advantages_are_sums_of_discounted_errors(gamma: float, decay: float) -> None:
    """sum_k (gamma lambda)^k delta_(t+k) up to the end of the episode, in plain Python."""
    rollout = random_rollout(2, 40, 5)
    assert rollout.final_values is not None
    advantages, returns = gae(rollout, gamma, decay)
    ends = rollout.terminated | rollout.truncated
    assert (rollout.terminated & rollout.truncated).any() and ends[:, -1].any()

    def error(m: int, t: int, e: int) -> float:
        future = float(rollout.last_values[m, e] if t == 39 else rollout.values[m, t + 1, e])
        if rollout.truncated[m, t, e]:
            future = float(rollout.final_values[m, t, e])  # type: ignore[index]
        if rollout.terminated[m, t, e]:
            future = 0.0
        return float(rollout.rewards[m, t, e]) + gamma * future - float(rollout.values[m, t, e])

    for m in range(2):
        for e in range(5):
            for t in range(40):
                total, last = 0.0, t
                while last < 39 and not ends[m, last, e]:
                    last += 1
                for k in range(t, last + 1):
                    total += (gamma * decay) ** (k - t) * error(m, k, e)
                assert advantages[m, t, e].item() == pytest.approx(total, rel=1e-4, abs=1e-5)
                value = rollout.values[m, t, e].item()
                assert returns[m, t, e].item() == pytest.approx(total + value, rel=1e-4, abs=1e-5)


def test_advantages_at_ends_of_episodes_by_hand() -> None:
    """One lane, discount 1/2, no decay's help: a termination, a cut, and what goes on."""
    no, yes = [False] * 4, [True] * 4

    def row(*numbers: float | bool) -> Tensor:
        return torch.tensor(numbers).view(1, 4, 1)

    rollout = Rollout(
        *(torch.zeros(1, 4, 1, 1),) * 2,
        log_probs=row(0.0, 0.0, 0.0, 0.0),
        values=row(1.0, 2.0, 3.0, 4.0),
        rewards=row(10.0, 20.0, 30.0, 40.0),
        terminated=row(True, *no[:3]),
        truncated=row(False, True, False, False),
        valid=row(*yes),
        last_values=torch.tensor([[8.0]]),
        final_values=row(100.0, 6.0, 100.0, 100.0),
    )
    advantages, returns = gae(rollout, 0.5, 0.5)
    # 40 + 8/2 - 4;  30 + 4/2 - 3 + 40/4;  20 + 6/2 - 2, the cut;  10 - 1, the termination.
    assert advantages.flatten().tolist() == [9.0, 21.0, 39.0, 40.0]
    assert returns.flatten().tolist() == [10.0, 23.0, 42.0, 44.0]


def rows_of(rollout: Rollout, lane: int, gamma: float) -> dict[str, NDArray[Any]]:
    """One lane of the first member as Stable-Baselines3 has it."""
    names = ("values", "log_probs", "rewards", "terminated", "truncated", "final_values")
    one = {name: getattr(rollout, name)[0, :, lane].numpy() for name in names}
    cut = one["truncated"] & ~one["terminated"]
    ended = one["truncated"] | one["terminated"]
    return {
        "observations": rollout.observations[0, :, lane].numpy(),
        "actions": rollout.actions[0, :, lane].numpy(),
        "values": one["values"],
        "log_probs": one["log_probs"],
        "rewards": one["rewards"] + gamma * one["final_values"] * cut,
        "episode_starts": np.append(True, ended[:-1]),
        "last": rollout.last_values[0, lane].numpy()[None],
        "done": ended[-1:],
    }


def sb3_buffer(rows: dict[str, NDArray[Any]], gamma: float, decay: float) -> Any:
    """Stable-Baselines3's buffer filled with one lane, advantages computed."""
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    size, width = rows["observations"].shape
    observed = spaces.Box(-np.inf, np.inf, (width,))
    acting = spaces.Box(-np.inf, np.inf, rows["actions"].shape[1:])
    buffer = buffers.RolloutBuffer(size, observed, acting, "cpu", decay, gamma)
    for i in range(size):
        names = ("observations", "actions", "rewards", "episode_starts")
        numbers = (torch.tensor(rows[name][i : i + 1]) for name in ("values", "log_probs"))
        buffer.add(*(rows[name][i : i + 1] for name in names), *numbers)
    buffer.compute_returns_and_advantage(torch.tensor(rows["last"]), rows["done"])
    return buffer


def assert_advantages_of_sb3(rollout: Rollout, gamma: float, decay: float) -> list[Any]:
    """Compare lane by lane; return Stable-Baselines3's buffers."""
    results = gae(rollout, gamma, decay)
    buffers = []
    for lane in range(rollout.values.shape[2]):
        buffers.append(sb3_buffer(rows_of(rollout, lane, gamma), gamma, decay))
        for value, name in zip(results, ("advantages", "returns"), strict=True):
            expected = torch.from_numpy(getattr(buffers[-1], name)[:, 0])
            torch.testing.assert_close(value[0, :, lane], expected, rtol=1e-5, atol=1e-5)
    return buffers


def test_advantages_are_those_of_stable_baselines3_at_ends_of_episodes() -> None:
    for seed in range(3):
        assert_advantages_of_sb3(random_rollout(1, 50, 4, seed), 0.95, 0.9)


def cart_poles(lanes: int, limit: int = 15) -> ClassicVectorEnv:
    """Short enough that episodes end in both ways."""
    return VECTOR_ENVS["CartPole-v1"](lanes, max_episode_steps=limit, **NO_RESET)


@pytest.mark.usefixtures("engines")
def test_an_update_over_ends_of_episodes_is_that_of_stable_baselines3() -> None:
    """Of the same steps; all of them in one minibatch."""
    options = {"num_steps": 64, "batch_size": 256, "epochs": 5, "clip_range": 0.02}
    clipped = {"value_clip": "sb3", "value_clip_range": 0.1}
    agent, model = both(cart_pole, {**options, **clipped}, lr=2e-3, members=1)
    envs = cart_poles(4)
    agent.reset(envs.reset(seed=3)[0])
    rollout = agent.rollout(envs)
    assert rollout.terminated.any() and rollout.truncated.any() and rollout.valid.all()
    give_weights(agent, model)
    parts = assert_advantages_of_sb3(rollout, 0.99, 0.95)
    names = "observations actions rewards episode_starts values log_probs advantages returns"
    buffer = type(parts[0])(256, model.observation_space, model.action_space, "cpu")
    for name in names.split():
        setattr(buffer, name, np.concatenate([getattr(part, name) for part in parts]))
    buffer.full = True
    model.rollout_buffer, model.batch_size = buffer, 256
    results = agent.update(rollout)
    logged = train(model, np.stack([np.arange(256)] * 5))
    expected = weights(model)
    for name, value in agent.population.parameters().items():
        torch.testing.assert_close(value[0], expected[name], rtol=0, atol=1e-5)
    for ours, theirs in (
        ("policy_loss", "policy_gradient_loss"),
        ("value_loss", "value_loss"),
        ("clip_fraction", "clip_fraction"),
        ("explained_variance", "explained_variance"),
    ):
        assert results[ours].item() == pytest.approx(logged[theirs], rel=1e-4, abs=1e-5)
    assert results["entropy"].item() == pytest.approx(-logged["entropy_loss"], rel=1e-4)
    assert results["clip_fraction"].item() > 0


def test_steps_that_do_not_count_are_no_part_of_an_update() -> None:
    """Whatever stands in them, as where a learner was made new amid a rollout."""
    results = []
    for spoilt in (0.0, 0.5):
        envs = cart_poles(4)
        agent = begin([0], envs, num_steps=32, batch_size=32)
        rollout = agent.rollout(envs)
        rollout.valid[0, :12] = False
        for name in ("observations", "log_probs", "rewards"):
            getattr(rollout, name)[~rollout.valid] += spoilt
        agent.update(rollout)
        results.append(agent.population.rows)
    assert torch.equal(*results)


def test_a_shorter_rollout_is_learned_from() -> None:
    """In minibatches as large; what does not fill one is left out, and fewer are one."""
    for steps, size in ((20, 32), (9, 32), (3, 12)):
        envs = cart_poles(4)
        agent = begin([0, 1], match := cart_poles(8), num_steps=32, batch_size=32, epochs=2)
        before = agent.population.rows.clone()
        rollout = agent.rollout(match, steps=steps)
        assert rollout.rewards.shape == (2, steps, 4)
        with mock.patch.object(agent.population, "learn", side_effect=agent.population.learn) as on:
            results = agent.update(rollout)
        assert [call.args[0].shape[1:3] for call in on.call_args_list] == [
            (4 * steps // size, size)
        ] * 2
        assert results["losses"].shape == (2, 2 * (4 * steps // size))
        assert not torch.equal(agent.population.rows, before)
        alone = begin([1], envs, num_steps=32, batch_size=32, epochs=2)
        alone.update(alone.rollout(envs, steps=steps))
        assert torch.equal(alone.population.rows[0], agent.population.rows[1])


def test_advantages_normalised_over_the_rollout() -> None:
    """As if they had been so from the start, and were not normalised again."""
    seen = []
    for mode in ("batch", "none"):
        envs = cart_poles(4)
        agent = begin([0], envs, num_steps=32, batch_size=32, normalize_advantages=mode)
        rollout = agent.rollout(envs)
        if mode == "none":
            raw, returns = gae(rollout, 0.99, 0.95)
            real = raw[rollout.valid]
            scaled = (raw - real.mean()) / (real.std() + 1e-8)
            with mock.patch("clrl.agents.ppo.ppo.gae", return_value=(scaled, returns)):
                agent.update(rollout)
        else:
            agent.update(rollout)
        seen.append(agent.population.rows)
    torch.testing.assert_close(*seen, rtol=0, atol=1e-6)


def one_minibatch(**options: Any) -> tuple[PPO, Rollout]:
    """A learner whose update is a single minibatch, and its rollout, with ends of both kinds."""
    envs = cart_poles(4)
    agent = begin([0], envs, num_steps=64, batch_size=256, epochs=1, **options)
    rollout = agent.rollout(envs)
    for flags in (rollout.terminated, rollout.truncated):
        assert flags.any()
    return agent, rollout


def test_values_are_fitted_to_discounted_rewards_to_go() -> None:
    """By hand, an episode at a time; an episode that goes on ends in the value it has reached."""
    agent, rollout = one_minibatch(value_target="reward-to-go", gamma=0.9)
    advantages, _ = gae(rollout, 0.9, 0.95)
    expected = torch.zeros_like(rollout.rewards[0])
    for lane in range(4):
        to_go = rollout.last_values[0, lane]
        for step in reversed(range(64)):
            if rollout.terminated[0, step, lane]:
                to_go = torch.zeros(())
            elif rollout.truncated[0, step, lane]:
                assert rollout.final_values is not None
                to_go = rollout.final_values[0, step, lane]
            if rollout.valid[0, step, lane]:
                to_go = rollout.rewards[0, step, lane] + 0.9 * to_go
                expected[step, lane] = to_go
    real = rollout.valid[0]
    error = (expected - rollout.values[0])[real]
    results = agent.update(rollout)
    assert results["value_loss"].item() == pytest.approx((error**2).mean().item(), rel=1e-5)
    # Advantages stay what they are: so does the policy's loss, and its gradient.
    other, same = one_minibatch(value_target="lambda", gamma=0.9)
    assert torch.equal(gae(same, 0.9, 0.95)[0], advantages)
    theirs = other.update(same)
    assert torch.equal(theirs["policy_loss"], results["policy_loss"])
    assert theirs["value_loss"].item() != pytest.approx(results["value_loss"].item(), rel=1e-3)


def test_a_cut_episode_may_count_as_terminated() -> None:
    """Advantages by CleanRL's recursion, over the steps that are real."""
    agent, rollout = one_minibatch(bootstrap_truncated=False)
    kept, same = one_minibatch()
    assert torch.equal(rollout.observations, same.observations)
    assert torch.equal(rollout.terminated, same.terminated | same.truncated)
    advantages, _ = gae(rollout, 0.99, 0.95)
    for lane in range(4):
        own = rollout.valid[0, :, lane]
        rewards, values = rollout.rewards[0, own, lane], rollout.values[0, own, lane]
        ends = (same.terminated | same.truncated)[0, own, lane].float()
        following = torch.cat([values[1:], rollout.last_values[0, lane : lane + 1]])
        running, expected = 0.0, []
        for step in reversed(range(len(values))):
            goes_on = 1 - ends[step]
            delta = rewards[step] + 0.99 * following[step] * goes_on - values[step]
            running = delta + 0.99 * 0.95 * goes_on * running
            expected.append(running)
        torch.testing.assert_close(advantages[0, own, lane], torch.stack(expected[::-1]))
    assert not torch.equal(agent.update(rollout)["value_loss"], kept.update(same)["value_loss"])


@pytest.mark.parametrize(
    ("form", "loss", "slope"),
    [
        # A value that moved from 0 to 1 with the target at 2, at -2 and at 0.05.
        ("none", [1.0, 9.0, 0.9025], [-2.0, 6.0, 1.9]),
        ("sb3", [3.24, 4.84, 0.0225], [0.0, 0.0, 0.0]),
        ("max", [3.24, 9.0, 0.9025], [0.0, 6.0, 1.9]),
    ],
)
def test_the_error_of_a_value_that_moved_far(
    form: Any, loss: list[float], slope: list[float]
) -> None:
    """Three forms by hand: the loss, and its derivative with respect to the value."""
    options = PPOOptions(value_clip=form, value_coefficient=1.0)
    actions = actions_of(spaces.Discrete(2))
    for target, expected, derivative in zip((2.0, -2.0, 0.05), loss, slope, strict=True):
        value = torch.ones(1, requires_grad=True)
        zeros = torch.zeros(1)

        def forward(_: Tensor, value: Tensor = value) -> tuple[Tensor, ...]:
            return torch.zeros(1, 2), torch.zeros(0), value

        total, named = make_loss(actions, options)(
            forward, zeros, zeros[:, None], zeros, zeros, zeros, torch.tensor([target]), zeros + 1
        )
        total.backward()
        assert named["value_loss"].item() == pytest.approx(expected, rel=1e-5)
        assert value.grad is not None
        assert value.grad.item() == pytest.approx(derivative, rel=1e-5, abs=1e-7)


def test_actions_may_reach_the_environment_as_they_are_drawn() -> None:
    """A third of what a policy of spread 1 draws is beyond bounds of 1."""
    got = {}
    for clip in (True, False):
        taken: list[NDArray[Any]] = []

        class Heard(gym.ActionWrapper[Any, Any, Any]):
            def action(self, action: Any, taken: list[NDArray[Any]] = taken) -> Any:
                taken.append(np.array(action))
                return action

        envs = SyncVectorEnv([lambda: Heard(Match("continuous"))] * 2)
        agent = begin([0], envs, num_steps=50, batch_size=50, clip_actions=clip)
        rollout = agent.rollout(envs)
        drawn = rollout.actions[0, rollout.valid[0]].numpy()
        assert (np.abs(drawn) > 1).any()
        np.testing.assert_array_equal(np.array(taken), np.clip(drawn, -1, 1) if clip else drawn)
        got[clip] = rollout.log_probs
    assert torch.equal(got[True], got[False])


# Rollouts


@pytest.mark.parametrize("normalised", [False, True])
def test_a_rollout_is_what_happened(normalised: bool) -> None:
    """Observations, rewards and flags are the environments'; every step is a transition."""
    envs, twin = cart_poles(6), cart_poles(6)
    agent = begin([4, 9], envs, num_steps=40, batch_size=40, normalize_observations=normalised)
    statistics: list[Any] = []
    watched: list[tuple[Any, ...]] = []

    def watch(*args: Any) -> None:
        watched.append(tuple(np.copy(arg) for arg in args[:2]))
        if normalised:
            statistics.append(copy.deepcopy(agent._observations))

    rollout = agent.rollout(envs, watch)
    assert rollout.valid.all() and rollout.final_values is not None

    def values_of(observations: Any) -> Tensor:
        return agent.act(torch.from_numpy(observations).view(2, 3, 4), torch.zeros(2, 3, 2))[2]

    seeds = [derived_seed(seed, f"envs/{lane}") for seed in (4, 9) for lane in range(3)]
    observations, _ = twin.reset(seed=seeds)
    cuts = 0
    for step in range(40):
        own = {
            name: value[:, step].flatten(0, 1)
            for name, value in vars(rollout).items()
            if name != "last_values"
        }
        if not normalised:
            assert np.array_equal(own["observations"], observations)
        actions = own["actions"][:, 0].numpy().astype(np.int64)
        observations, rewards, terminated, truncated, _ = twin.step(actions)
        ended = terminated | truncated
        assert np.array_equal(own["rewards"], rewards.astype(np.float32))
        assert np.array_equal(own["terminated"], terminated)
        assert np.array_equal(own["truncated"], truncated)
        for got, expected in zip(watched[step], (rewards, ended), strict=True):
            assert np.array_equal(got, expected)
        seen = observations
        if normalised:  # by what had been seen up to then, which the end of an episode is not of
            seen = statistics[step].as_now(observations.reshape(2, 3, 4)).reshape(6, 4)
        cut = torch.from_numpy(truncated & ~terminated)
        expected = values_of(seen).flatten()[cut]
        torch.testing.assert_close(own["final_values"][cut], expected, rtol=0, atol=1e-6)
        cuts += int(cut.sum())
        if ended.any():
            observations, _ = twin.reset(options={"reset_mask": ended})
    assert cuts > 1
    if not normalised:
        assert torch.equal(rollout.last_values, values_of(observations))


def test_rollouts_follow_on_one_another() -> None:
    """Two short ones are one long one, where nothing is learned in between."""
    once, twice = cart_poles(4), cart_poles(4)
    whole = begin([1], once, num_steps=40, batch_size=40).rollout(once)
    agent = begin([1], twice, num_steps=20, batch_size=40)
    parts = [agent.rollout(twice) for _ in range(2)]
    names = ("observations", "actions", "rewards", "terminated", "truncated", "final_values")
    for name in names:
        joined = torch.cat([getattr(part, name) for part in parts], dim=1)
        assert torch.equal(joined, getattr(whole, name)), name
    assert torch.equal(parts[0].last_values, parts[1].values[:, 0])


def test_rewards_are_scaled_for_learning_alone() -> None:
    envs, seen = cart_poles(4), []
    agent = begin([1], envs, num_steps=20, batch_size=20, reward_scale=0.25)
    rollout = agent.rollout(envs, lambda reward, *_: seen.append(reward.copy()))
    assert torch.equal(rollout.rewards[0], 0.25 * torch.from_numpy(np.stack(seen)).float())


def test_densities_are_of_actions_before_they_are_clipped() -> None:
    envs = VECTOR_ENVS["Pendulum-v1"](4, **NO_RESET)
    agent = begin([0], envs, num_steps=60, batch_size=60, log_std=1.0)
    with mock.patch.object(envs, "step", side_effect=envs.step) as step:
        rollout = agent.rollout(envs)
    drawn = rollout.actions[0, :, :, 0]
    given = torch.from_numpy(np.stack([call.args[0][:, 0] for call in step.call_args_list]))
    assert (drawn.abs() > 2.0).any()
    assert torch.equal(given, drawn.clamp(-2.0, 2.0))
    answer = agent.population.compiled(lambda forward, x: forward(x))
    means, spread, values = answer(rollout.observations.flatten(1, 2))
    expected = torch.distributions.Normal(means[0, :, 0], spread[0].exp()).log_prob(drawn.flatten())
    torch.testing.assert_close(rollout.log_probs.flatten(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rollout.values.flatten(), values.flatten(), rtol=1e-5, atol=1e-5)


def test_normalised_observations_are_what_the_networks_see() -> None:
    envs = cart_poles(4)
    agent = begin([1], envs, num_steps=200, batch_size=200, normalize_observations=True)
    seen = agent.rollout(envs).observations[0, 100:].flatten(0, 1)
    assert (seen.std(dim=0) > 0.5).all() and (seen.std(dim=0) < 1.5).all()


# Members do not depend on their siblings, to the last bit

CBP = (ContinualBackprop, {"replacement_rate": 0.01, "maturity_threshold": 3})
REDO = (ReDo, {"threshold": 0.5, "every": 3, "examples": 20})
RESETS = [
    (SelfNormalizedResets, {"every": 3, "longest": 2, "above": 0.8}),
    (ReGraMa, {"threshold": 0.3, "every": 3, "updates": 2}),
    (CalibratedPartialResets, {"rate": 0.1, "every": 2}),
    (HeadReset, {"every": 5}),
    (DASH, {"every": 4}),
    (FIRE, {"every": 7, "times": 1}),
    (FullReset, {"every": 9, "times": 1}),
]
WRAPPED = [
    (TRAC, {"start": 0.1, "parts": "apart"}),
    (AdamRel, {}),
    (OptimizerReset, {"every": 20}),
]
UPGD_RULE = UpdateRule(
    UPGD, {"lr": 0.01, "sigma": 0.01, "beta_utility": 0.9}, [(ShrinkAndPerturb, {})]
)
INDEPENDENT: dict[str, tuple[UpdateRule, dict[str, Any]]] = {
    "plain": (ADAM, {}),
    "normalised": (ADAM, {"normalize_observations": True, "normalize_rewards": "sb3"}),
    "shared, batch": (ADAM, {"shared": True, "normalize_advantages": "batch"}),
    "target_kl": (
        UpdateRule(torch.optim.Adam, {"lr": 3e-3, "eps": 1e-5}),
        {"target_kl": 0.002, "value_clip": "sb3"},
    ),
    "upgd": (UPGD_RULE, {"entropy_coefficient": 0.01}),
    "continual-backprop": (UpdateRule(torch.optim.Adam, {"lr": 1e-3}, [CBP]), {}),
    "redo": (UpdateRule(torch.optim.Adam, {"lr": 1e-3}, [REDO]), {}),
    "resets": (UpdateRule(torch.optim.Adam, {"lr": 1e-3}, RESETS), {}),
    "wrapped": (UpdateRule(torch.optim.Adam, {"lr": 1e-3}, WRAPPED), {}),
    "muon": (UpdateRule(Muon, {"lr": 1e-3}), {}),
    "unbounded": (ADAM, {"max_grad_norm": 0.0}),
    "as CleanRL": (
        ADAM,
        {"value_clip": "max", "bootstrap_truncated": False, "normalize_rewards": "gymnasium"},
    ),
    "reward-to-go": (ADAM, {"value_target": "reward-to-go"}),
}


def test_adams_count_restarts_with_each_rollout() -> None:
    """By hand: as where it is told to restart every so many updates, of which a rollout has 8."""
    found = []
    for options in ({}, {"every": 8}, {"every": 16}):
        rule = UpdateRule(torch.optim.Adam, {"lr": 1e-2}, [(AdamRel, options)])
        agent = begin([1], cart_poles(4), rule, num_steps=16, batch_size=16, epochs=2)
        envs = cart_poles(4)
        envs.reset(seed=[1, 2, 3, 4])
        for _ in range(3):
            agent.update(agent.rollout(envs))
        found.append(agent.population.rows.clone())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert not torch.equal(found[0], found[2])


def outcome(
    seeds: Sequence[int],
    chunk_size: int | None,
    make_envs: Callable[[int], Envs] = cart_poles,
    rule: UpdateRule = ADAM,
    iterations: int = 5,
    lanes: int = 4,
    **options: Any,
) -> list[Tensor]:
    """Every member's parameters, experience and measurements after some iterations."""
    envs = make_envs(lanes * len(seeds))
    options = {"num_steps": 16, "batch_size": 16, "epochs": 2, **options}
    agent = begin(seeds, envs, rule, chunk_size, **options)
    seen: list[Tensor] = []
    for _ in range(iterations):
        rollout = agent.rollout(envs)
        results = agent.update(rollout)
        seen += [rollout.actions, rollout.log_probs, rollout.rewards, *results.values()]
    return [agent.population.rows, *seen]


def assert_members(got: list[Tensor], expected: list[Tensor], members: Sequence[int]) -> None:
    """What these members of the expected have is what all of the others have, to the bit."""
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other[list(members)], rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize(("rule", "options"), INDEPENDENT.values(), ids=INDEPENDENT)
def test_a_seed_is_the_same_alone_and_among_others(
    rule: UpdateRule, options: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"rule": rule, "widths": (16, 8), **options}
    six = outcome(range(6), 3, **settings)
    assert not torch.equal(six[0][0], six[0][1])
    assert_members(outcome([4], None, **settings), six, [4])
    if not options:
        assert_members(outcome([5, 0, 3], 3, **settings), six, [5, 0, 3])
        assert_members(six, outcome(range(8), 8, **settings), range(6))


@pytest.mark.parametrize("lanes", [4, 8])
def test_chunks_change_nothing(lanes: int) -> None:
    """Nor does the number of members, with networks of the usual size."""
    settings: dict[str, Any] = {"iterations": 3, "lanes": lanes, "batch_size": 64}
    four = outcome(range(4), 4, **settings)
    for chunk_size in (1, None):
        assert_members(outcome(range(4), chunk_size, **settings), four, range(4))


@pytest.mark.parametrize(
    ("task", "lanes"), [("Pendulum-v1", 3), ("Acrobot-v1", 3), ("multi-discrete", 1)]
)
def test_other_tasks_and_numbers_of_environments(task: str, lanes: int) -> None:
    def make(count: int) -> Envs:
        if task in VECTOR_ENVS:
            return VECTOR_ENVS[task](count, max_episode_steps=7, **NO_RESET)
        return match_envs(count, task)

    # Three environments' observations do not fill whole vector registers, so that the second
    # member's begin within one.
    settings: dict[str, Any] = {"make_envs": make, "lanes": lanes, "iterations": 4}
    settings |= {"normalize_rewards": "sb3", "normalize_observations": True, "batch_size": 4}
    three = outcome(range(3), 2, **settings)
    assert_members(outcome([1], None, **settings), three, [1])


@pytest.mark.parametrize(("task", "shared"), [("CartPole-v1", True), ("Pendulum-v1", False)])
def test_members_are_stepped_together(task: str, shared: bool) -> None:
    """Every operation of the loss is one that treats members alike: none is done one by one."""
    envs = VECTOR_ENVS[task](12, **NO_RESET)
    options: dict[str, Any] = {"shared": shared, "value_clip": "max", "entropy_coefficient": 0.1}
    agent = begin(range(3), envs, ADAM, 3, num_steps=8, batch_size=8, epochs=1, **options)
    agent.update(agent.rollout(envs))
    assert agent.population.division == [3]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "options"), INDEPENDENT.values(), ids=INDEPENDENT)
def test_a_seed_of_half_cheetah_is_the_same_alone_and_among_others(
    rule: UpdateRule, options: dict[str, Any]
) -> None:
    pytest.importorskip("mujoco")

    def make(count: int) -> Envs:
        lanes = [lambda: gym.make("HalfCheetah-v5", max_episode_steps=30)] * count
        return SyncVectorEnv(lanes, **NO_RESET)

    settings: dict[str, Any] = {"make_envs": make, "rule": rule, "lanes": 2, "num_steps": 64}
    settings |= {"iterations": 3, **options}
    five = outcome(range(5), 2, **settings)
    assert_members(outcome([3], None, **settings), five, [3])
    assert_members(outcome([1, 0], 2, **settings), five, [1, 0])


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("widths", [(5,), (64, 64), (256, 256)])
@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1"])
def test_a_sweep_of_shapes(task: str, widths: tuple[int, ...], batch: int) -> None:
    settings: dict[str, Any] = {
        "make_envs": lambda count: VECTOR_ENVS[task](count, **NO_RESET),
        "num_steps": 112,
        "widths": widths,
        "batch_size": batch,
        "iterations": 2,
        "epochs": 1,
    }
    five = outcome(range(5), 3, **settings)
    assert_members(outcome([4], None, **settings), five, [4])
    assert_members(outcome(range(3), 3, **settings), five, range(3))


def test_global_generators_are_left_alone() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    outcome([0, 1], None, rule=INDEPENDENT["upgd"][0], iterations=2)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]


# Updates that end early


def test_members_end_their_updates_apart() -> None:
    envs = cart_poles(16)
    rule = UpdateRule(torch.optim.Adam, {"lr": 3e-3})
    options: dict[str, Any] = {"num_steps": 32, "batch_size": 32, "epochs": 6}
    agent = begin(range(4), envs, rule, target_kl=0.003, **options)
    results = agent.update(agent.rollout(envs))
    counts = (results["losses"] != 0).sum(dim=1)
    assert len(set(counts.tolist())) > 1 and (counts < 24).any()
    # The means are over the minibatches that were looked at.
    for member, count in enumerate(counts.tolist()):
        expected = results["losses"][member, :count].mean()
        torch.testing.assert_close(results["loss"][member], expected)
    assert (results["losses"][0, counts[0] :] == 0).all()


# Divergence


class Doomed(torch.optim.Optimizer):
    """SGD with a rate of 1e6 for the one whose generator has this seed."""

    stacks_members = True

    def __init__(
        self, params: Any, lr: float, doomed: int, generator: Sequence[torch.Generator]
    ) -> None:
        super().__init__(params, {"lr": lr})
        own = [1e6 if one.initial_seed() == doomed else lr for one in generator]
        self._rates = torch.tensor(own).unsqueeze(1)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(self._rates * p.grad)


@pytest.mark.parametrize(
    ("task", "chunk_size", "options"),
    [
        ("Pendulum-v1", 4, {"max_grad_norm": 0.0, "normalize_observations": True}),
        ("Pendulum-v1", 2, {"normalize_rewards": "sb3"}),
        ("CartPole-v1", 1, {"max_grad_norm": 0.0, "target_kl": 0.01}),
    ],
)
def test_a_member_that_diverges_is_frozen_and_its_siblings_go_on(
    task: str, chunk_size: int, options: dict[str, Any]
) -> None:
    doomed = derived_seed(1, "update")
    rule = UpdateRule(Doomed, {"lr": 0.01, "doomed": doomed})

    def run(seeds: Sequence[int]) -> tuple[PPO, list[Tensor]]:
        envs = VECTOR_ENVS[task](4 * len(seeds), **NO_RESET)
        settings = {"num_steps": 32, "batch_size": 32, "epochs": 4, "widths": (16, 8), **options}
        agent = begin(seeds, envs, rule, chunk_size, **settings)
        seen = []
        for _ in range(4):
            results = agent.update(agent.rollout(envs))
            agent.population.freeze_diverged(results["losses"])
            agent.population.mark_safe()
            seen += list(results.values())
        return agent, [agent.population.rows, *seen]

    agent, results = run(range(4))
    assert agent.population.frozen.tolist() == [False, True, False, False]
    assert agent.population.rows.isfinite().all()
    others = [0, 2, 3]
    without, expected = run(others)
    assert not without.population.frozen.any()
    assert_members(expected, results, others)


# State


@pytest.mark.parametrize(
    ("kind", "trained"),
    [
        ("normalised", 2),
        ("target_kl", 2),
        ("upgd", 2),
        ("continual-backprop", 2),
        ("redo", 2),
        ("resets", 2),
        ("upgd", 0),
    ],
)
def test_state_round_trips_to_an_identical_future(kind: str, trained: int) -> None:
    rule, options = INDEPENDENT[kind]
    settings = {"num_steps": 16, "batch_size": 16, "epochs": 2, "widths": (9, 8), **options}

    def make(seeds: Sequence[int], chunk_size: int | None) -> tuple[PPO, ClassicVectorEnv]:
        envs = cart_poles(12)
        return begin(seeds, envs, rule, chunk_size, **settings), envs

    agent, envs = make(range(3), 2 if kind == "normalised" else 3)
    for _ in range(trained):
        agent.update(agent.rollout(envs))
    file = io.BytesIO()
    torch.save({"agent": agent.state_dict(), "envs": envs.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other, other_envs = make(range(3, 6), 3)  # of other seeds, and with a past of their own
    other.update(other.rollout(other_envs))
    other.load_state_dict(state["agent"])
    other_envs.load_state_dict(state["envs"])
    for _ in range(2):
        one, two = agent.rollout(envs), other.rollout(other_envs)
        for name, value in vars(one).items():
            assert torch.equal(value, getattr(two, name)), name
        first, second = agent.update(one), other.update(two)
        for name, value in first.items():
            torch.testing.assert_close(value, second[name], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(agent.population.rows, other.population.rows)


def test_state_between_rollout_and_update() -> None:
    """The orders drawn are the same, also where an episode has just ended."""
    agent, envs = begin([2], cart := cart_poles(4), num_steps=15, batch_size=60), cart
    rollout = agent.rollout(envs)
    assert (rollout.terminated | rollout.truncated)[:, -1].any()
    state = agent.state_dict()
    other = begin([2], cart_poles(4), num_steps=15, batch_size=60)
    other.load_state_dict(state)
    twin = cart_poles(4)
    twin.load_state_dict(envs.state_dict())
    agent.update(rollout)
    other.update(rollout)
    assert torch.equal(agent.population.rows, other.population.rows)
    after, again = agent.rollout(envs), other.rollout(twin)
    for name, value in vars(after).items():
        assert torch.equal(value, getattr(again, name)), name


def test_a_loaded_learner_can_go_on_without_a_reset() -> None:
    """A fresh one, made to be given a state, has not seen an environment."""
    envs = cart_poles(4)
    agent = begin([2], envs, num_steps=15, batch_size=60)
    state, envs_state = agent.state_dict(), envs.state_dict()
    expected = agent.rollout(envs)
    with mock.patch.object(PPO, "reset"):
        other = begin([2], again := cart_poles(4), num_steps=15, batch_size=60)
    again.load_state_dict(envs_state)
    other.load_state_dict(state)
    assert torch.equal(other.rollout(again).actions, expected.actions)


# Learning


@pytest.mark.parametrize("kind", ["discrete", "multi-discrete", "continuous"])
def test_it_learns_to_do_what_it_is_told(kind: str) -> None:
    envs = match_envs(8, kind)
    rule = UpdateRule(torch.optim.Adam, {"lr": 5e-3})
    options: dict[str, Any] = {"num_steps": 16, "batch_size": 64, "epochs": 8, "gamma": 0.0}
    agent = begin([0, 1], envs, rule, widths=(16,), log_std=-0.5, **options)
    means = []
    for _ in range(18):  # 1152 steps of each of two learners
        rollout = agent.rollout(envs)
        means.append(rollout.rewards.mean((1, 2)))
        agent.update(rollout)
    least = {"discrete": 0.9, "multi-discrete": 0.9, "continuous": 0.7}[kind]
    assert (means[0] < 0.6).all()
    assert (means[-1] > least).all()


@pytest.mark.slow
def test_it_balances_the_pole() -> None:
    envs = VECTOR_ENVS["CartPole-v1"](8, **NO_RESET)
    agent = begin([0], envs, num_steps=256, batch_size=64, epochs=10)
    returns, running = [], np.zeros(8)

    def watch(rewards: Any, ended: Any, *_: Any) -> None:
        running[:] += rewards
        returns.extend(running[ended].tolist())
        running[ended] = 0.0

    for _ in range(15):  # 30,720 steps
        agent.update(agent.rollout(envs, watch))
    assert np.mean(returns[:20]) < 60
    assert np.mean(returns[-20:]) > 150


# What is refused


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.Box(0.0, 1.0, (2, 2)),
        spaces.Box(np.zeros((2, 2), np.float32), np.arange(1, 5, dtype=np.float32).reshape(2, 2)),
        spaces.Dict({"a": spaces.Box(0.0, 1.0, (2,))}),
    ],
    ids=["discrete", "image", "bounds", "dict"],
)
def test_other_observations_are_refused(space: spaces.Space[Any]) -> None:
    def make(*_: Any) -> Network:
        raise AssertionError("a network is made")

    with pytest.raises(UsageError, match="observations: expected a Box with one axis") as error:
        PPO([0], space, spaces.Discrete(2), make, ADAM, PPOOptions())
    assert "\n" not in str(error.value)


def test_other_actions_are_refused() -> None:
    def make(*_: Any) -> Network:
        raise AssertionError("a network is made")

    with pytest.raises(UsageError, match="actions: expected Discrete") as error:
        PPO([0], spaces.Box(0, 1, (2,)), spaces.MultiBinary(2), make, ADAM, PPOOptions())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("batch_size", [60, 512])
def test_a_batch_size_that_does_not_divide_is_refused(batch_size: int) -> None:
    envs = cart_poles(4)
    message = f"agent.batch_size: expected a divisor of .* \\(256\\), got {batch_size}$"
    with pytest.raises(UsageError, match=message):
        begin([0], envs, num_steps=64, batch_size=batch_size)


def test_options_are_what_they_are_said_to_be() -> None:
    """The defaults are Stable-Baselines3's, environments and steps apart."""
    model = reference(cart_pole, 2048)
    ours = dataclasses.asdict(PPOOptions())
    for name, theirs in (
        ("batch_size", model.batch_size),
        ("epochs", model.n_epochs),
        ("gamma", model.gamma),
        ("gae_lambda", model.gae_lambda),
        ("clip_range", model.clip_range(1.0)),
        ("value_coefficient", model.vf_coef),
        ("entropy_coefficient", model.ent_coef),
        ("max_grad_norm", model.max_grad_norm),
        ("target_kl", model.target_kl),
    ):
        assert ours[name] == theirs, name
    assert ours["num_envs"] * ours["num_steps"] == 2048
    assert model.clip_range_vf is None and ours["value_clip"] == "none"
    assert model.normalize_advantage and ours["normalize_advantages"] == "minibatch"
