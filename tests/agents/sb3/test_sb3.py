"""Stable-Baselines3's algorithms with our update rules and our view of their networks."""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn

from clrl.agents import sb3
from clrl.agents.optim.continual_backprop import ContinualBackprop
from clrl.agents.optim.fire import FIRE
from clrl.agents.optim.plasticity_injection import PlasticityInjection
from clrl.agents.optim.redo import ReDo
from clrl.agents.optim.resets import FullReset, HeadReset
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.shrink_perturb import ShrinkAndPerturb
from clrl.agents.optim.units import Units
from clrl.agents.optim.upgd import UPGD
from clrl.agents.options import (
    MLPOptions,
    SB3A2COptions,
    SB3DQNOptions,
    SB3Options,
    SB3PPOOptions,
    SB3SACOptions,
    SB3TD3Options,
)
from clrl.envs.state import load_state_dict, state_dict
from clrl.errors import UsageError
from clrl.seeding import derived_seed
from clrl.storage import checkpoint

NO_RESET = {"autoreset_mode": AutoresetMode.DISABLED}
OFF: dict[str, Any] = {"buffer_size": 500, "learning_starts": 20, "batch_size": 16}
OPTIONS: dict[str, SB3Options] = {
    "PPO": SB3PPOOptions(num_envs=2, n_steps=32, batch_size=16, n_epochs=2),
    "A2C": SB3A2COptions(num_envs=2),
    "DQN": SB3DQNOptions(**OFF),
    "SAC": SB3SACOptions(**OFF),
    "TD3": SB3TD3Options(**OFF, action_noise=0.1),
}
CONTINUOUS = {"SAC", "TD3"}
ADAM = UpdateRule(torch.optim.Adam, {"lr": 1e-3, "eps": 1e-5})
STEPS = 64
every_algorithm = pytest.mark.parametrize("name", OPTIONS)


class Nothing(BaseCallback):
    def _on_step(self) -> bool:
        return True


def envs(name: str, lanes: int) -> Any:
    env = "Pendulum-v1" if name in CONTINUOUS else "CartPole-v1"
    return gym.make_vec(env, lanes, vectorization_mode="sync", vector_kwargs=NO_RESET)


def learner(name: str, rule: UpdateRule = ADAM, seed: int = 1, **network: Any) -> sb3.Learner:
    options = OPTIONS[name]
    shape = MLPOptions(**{"widths": (12, 8), **network})
    made: sb3.Learner = getattr(sb3, name)(seed, envs(name, options.num_envs), shape, rule, options)
    return made


def trained(name: str, rule: UpdateRule = ADAM, steps: int = STEPS, **more: Any) -> sb3.Learner:
    with sb3.own_generators():
        one = learner(name, rule, **more)
        one.learn(steps, Nothing())
    return one


def weights(one: sb3.Learner) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in one.parameters().items()}


@every_algorithm
def test_names_and_defaults_are_those_of_stable_baselines3(name: str) -> None:
    parameters = inspect.signature(getattr(stable_baselines3, name)).parameters
    for field in fields(OPTIONS[name]):
        if field.name == "num_envs":
            assert field.default == 1
        elif field.name == "action_noise":
            assert parameters[field.name].default is None
            assert field.default == 0
        else:
            assert field.default == parameters[field.name].default, field.name


def plain(name: str, seed: int) -> Any:
    """The same learner by Stable-Baselines3 alone, with torch's Adam."""
    options = OPTIONS[name]
    settings = {
        field.name: getattr(options, field.name)
        for field in fields(options)
        if field.name not in {"num_envs", "action_noise"}
    }
    policy: dict[str, Any] = {
        "net_arch": [12, 8],
        "activation_fn": nn.ReLU,
        "optimizer_class": torch.optim.Adam,
        "optimizer_kwargs": {"eps": 1e-5, "fused": True},
    }
    if name in {"PPO", "A2C"}:
        policy["ortho_init"] = False
    if name == "TD3":
        settings["action_noise"] = stable_baselines3.common.noise.NormalActionNoise(
            np.zeros(1), np.full(1, 0.1)
        )
    seeds = [derived_seed(seed, f"env/{i}") for i in range(options.num_envs)]
    lanes = sb3.Lanes(envs(name, options.num_envs), seeds, lambda *_: None)
    return getattr(stable_baselines3, name)(
        "MlpPolicy",
        lanes,
        learning_rate=1e-3,
        policy_kwargs=policy,
        seed=derived_seed(seed, "sb3") % 2**32,
        device="cpu",
        **settings,
    )


@every_algorithm
def test_with_adam_it_is_stable_baselines3(name: str) -> None:
    """To the bit; SAC's actor, whose two outputs are computed together, to rounding."""
    steps = 60 if name == "A2C" else STEPS  # whole rollouts, of which theirs takes no part
    ours = trained(name, steps=steps).model.policy.state_dict()
    with sb3.own_generators():
        model = plain(name, 1)
        start = {key: value.clone() for key, value in model.policy.state_dict().items()}
        model.learn(steps)
    theirs = model.policy.state_dict()
    assert any(not torch.equal(start[key], theirs[key]) for key in start)
    if name == "SAC":
        for kind in ("weight", "bias"):
            parts = [theirs.pop(f"actor.{head}.{kind}") for head in ("mu", "log_std")]
            theirs[f"actor.heads.{kind}"] = torch.cat(parts)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if name == "SAC":
            torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(ours[key], value), key


@every_algorithm
def test_features_are_those_of_a_forward_pass_by_hand(name: str) -> None:
    one = learner(name, activation="tanh")
    size = one.model.observation_space.shape[0]
    seen = torch.randn(7, size)
    features = one.features(0, seen)
    values = one.parameters()

    def stack(path: str, x: Tensor) -> list[Tensor]:
        hidden = []
        for i in (0, 2):
            x = torch.tanh(x @ values[f"{path}.{i}.weight"][0].T + values[f"{path}.{i}.bias"][0])
            hidden.append(x)
        return hidden

    if name in {"PPO", "A2C"}:
        expected = {
            "actor/layer": stack("policy.mlp_extractor.policy_net", seen),
            "critic/layer": stack("policy.mlp_extractor.value_net", seen),
        }
    elif name == "DQN":
        expected = {"layer": stack("q_net.q_net", seen)}
    else:
        hidden = stack("actor.latent_pi" if name == "SAC" else "actor.mu", seen)
        head = "actor.heads" if name == "SAC" else "actor.mu.4"
        out = hidden[-1] @ values[f"{head}.weight"][0].T + values[f"{head}.bias"][0]
        both = torch.cat([seen, torch.tanh(out[:, :1])], dim=1)
        expected = {
            "actor/layer": hidden,
            "critic/q1_layer": stack("critic.qf0", both),
            "critic/q2_layer": stack("critic.qf1", both),
        }
    assert list(features) == [f"{key}_{i}" for key in expected for i in (1, 2)]
    for key, layers in expected.items():
        for i, value in enumerate(layers):
            torch.testing.assert_close(features[f"{key}_{i + 1}"], value)


@every_algorithm
def test_a_unit_without_its_outgoing_weights_does_nothing(name: str) -> None:
    """What the declaration calls incoming and outgoing is all there is of either."""
    one = learner(name, activation="tanh")
    outputs: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(_: Any, __: Any, output: Tensor) -> None:
            outputs[path] = output.clone()

        return hook

    for stack in one.network.stacks:
        one.network.get_submodule(stack.output).register_forward_hook(keep(stack.output))
    seen = torch.randn(5, one.model.observation_space.shape[0])

    def run() -> dict[str, Tensor]:
        with torch.no_grad():
            one.network(seen)
        return dict(outputs)

    parameters = dict(one.network.named_parameters())
    for layer in one.network.hidden_layers:
        with torch.no_grad():
            before = run()
            parameters[f"{layer.incoming}.bias"][3] += 5.0
            moved = run()
            assert any(not torch.equal(moved[key], before[key]) for key in before)
            parameters[f"{layer.outgoing}.weight"][:, 3] = 0.0
            cut = run()
            parameters[f"{layer.incoming}.weight"][3] += 9.0
            torch.testing.assert_close(run(), cut, rtol=0, atol=0)


@every_algorithm
def test_parts_and_names(name: str) -> None:
    network = learner(name).network
    parts = {network.part_of(key) for key, _ in network.named_parameters()}
    assert parts == ({"network"} if name == "DQN" else {"actor", "critic"})
    assert not any("target" in key for key, _ in network.named_parameters())


def test_the_spread_of_actions_belongs_to_the_actor() -> None:
    env = gym.make_vec("Pendulum-v1", 1, vectorization_mode="sync", vector_kwargs=NO_RESET)
    one = sb3.PPO(0, env, MLPOptions(widths=(4,)), ADAM, SB3PPOOptions())
    assert one.network.part_of("policy.log_std") == "actor"
    drawn = one.network.fresh("policy.log_std", torch.Generator())
    assert torch.equal(drawn, one.network.get_parameter("policy.log_std"))


@pytest.mark.parametrize(
    ("name", "init"), [("PPO", "orthogonal"), ("PPO", "torch"), ("SAC", "torch")]
)
def test_fresh_draws_are_like_the_start(name: str, init: str) -> None:
    one = learner(name, init=init, widths=(40, 30))
    generator = torch.Generator().manual_seed(0)
    for key, start in one.network.named_parameters():
        drawn = one.network.fresh(key, generator)
        assert drawn.shape == start.shape
        if start.numel() > 60:
            assert drawn.std().item() == pytest.approx(start.std().item(), rel=0.25), key
            assert not torch.equal(drawn, start)
        if init == "orthogonal" and key.endswith("weight"):
            norms = torch.linalg.matrix_norm(torch.stack([drawn, start.detach()]), ord=2)
            torch.testing.assert_close(norms[0], norms[1], rtol=1e-4, atol=0)
        if init == "orthogonal" and key.endswith("bias"):
            assert not drawn.any()
            assert not start.any()


@every_algorithm
def test_upgd_moves_every_network(name: str) -> None:
    rule = UpdateRule(UPGD, {"lr": 1e-3, "sigma": 0.1})
    upgd, again = trained(name, rule), trained(name, rule)
    quiet = trained(name, UpdateRule(UPGD, {"lr": 1e-3, "sigma": 0.0}))
    for key, value in weights(upgd).items():
        assert torch.equal(value, weights(again)[key]), key
        assert not torch.equal(value, weights(quiet)[key]), key


@every_algorithm
def test_continual_backprop_replaces_units_of_every_network(name: str) -> None:
    options = {"replacement_rate": 0.1, "maturity_threshold": 2}
    rule = UpdateRule(torch.optim.Adam, {"lr": 1e-3}, [(ContinualBackprop, options)])
    one = trained(name, rule)
    model = one.model
    owners = [model.actor, model.critic] if name in CONTINUOUS else [model.policy]
    states: dict[str, Any] = {}
    for owner in owners:
        states |= owner.optimizer.chain.addons[0].state_dict()
    assert list(states) == [layer.name for layer in one.network.hidden_layers]
    for layer, state in states.items():
        assert state["replaced"].item() > 0, layer
        # What it saw is the batch that was learned from.
        assert state["mean"].abs().sum() > 0


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_units_of_the_critic_alone_start_anew(name: str) -> None:
    """Whether actor and critic have one optimizer or two."""
    seen: set[str] = set()

    class Seen(ReDo):
        def renew(self, layer: Units, member: int, units: Tensor) -> None:
            seen.add(layer.name)
            super().renew(layer, member, units)

    options = {"threshold": 0.9, "every": 4, "part": "critic"}
    trained(name, UpdateRule(torch.optim.Adam, {"lr": 1e-3}, [(Seen, options)]))
    assert seen and all(one.startswith("critic/") for one in seen)


def test_what_adds_to_networks_is_refused() -> None:
    rule = UpdateRule(torch.optim.SGD, {"lr": 0.0}, [(PlasticityInjection, {"after": 3})])
    with pytest.raises(UsageError, match="sb3:PPO has networks of its own, which take no injected"):
        trained("PPO", rule)


def test_what_acts_at_changes_of_task_is_refused() -> None:
    with pytest.raises(UsageError, match="sb3:PPO is not told of changes of task; expected"):
        learner("PPO", UpdateRule(torch.optim.Adam, {"lr": 1e-3}, [(FIRE, {})]))
    one = trained("PPO", UpdateRule(torch.optim.SGD, {"lr": 0.0}, [(FIRE, {"every": 3})]))
    weight = one.model.policy.mlp_extractor.policy_net[2].weight.detach()
    torch.testing.assert_close(weight @ weight.T, 8 / 12 * torch.eye(8), rtol=0, atol=0.05)


TARGETS = {"DQN": ["q_net"], "SAC": ["critic"], "TD3": ["critic", "actor"]}


@pytest.mark.parametrize("addon", [HeadReset, FullReset])
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_reset_with_its_network(name: str, addon: type[HeadReset]) -> None:
    """Nothing else moves, so that without it they would be apart for hundreds of updates."""
    rule = UpdateRule(torch.optim.SGD, {"lr": 0.0}, [(addon, {"every": 5, "times": 1})])
    one = trained(name, rule)
    with sb3.own_generators():
        start = weights(learner(name))
    new = {key for key, value in weights(one).items() if not torch.equal(value, start[key])}
    heads = {f"{head}.{kind}" for head in one.network.heads for kind in ("weight", "bias")}
    assert new == (heads if addon is HeadReset else start.keys())
    for part in TARGETS[name]:
        for key, target in getattr(one.model, f"{part}_target").named_parameters():
            own = one.network.get_parameter(f"{part}.{key}")
            torch.testing.assert_close(target, own, rtol=1e-6, atol=1e-7)


def test_the_rest_of_a_target_follows_at_its_own_pace() -> None:
    """That of DQN, which is brought up to date after 10,000 steps alone; the replay stays."""
    rule = UpdateRule(torch.optim.Adam, {"lr": 1e-2}, [(HeadReset, {"every": 5, "times": 1})])
    one = trained("DQN", rule)
    with sb3.own_generators():
        start = weights(learner("DQN"))
    now = weights(one)
    for key, target in one.model.q_net_target.named_parameters():
        is_head = key.startswith("q_net.4.")
        assert torch.equal(target[None], start[f"q_net.{key}"]) == (not is_head)
        assert not torch.equal(target[None], now[f"q_net.{key}"])  # which has learned since
    assert one.model.replay_buffer.size() == STEPS


def test_shrink_and_perturb_acts_after_each_step() -> None:
    addon = (ShrinkAndPerturb, {"shrink": 0.5, "noise_scale": 0.0})
    one = trained("PPO", UpdateRule(torch.optim.SGD, {"lr": 0.0}, [addon]))
    with sb3.own_generators():
        start = weights(learner("PPO"))
    steps = OPTIONS["PPO"].num_envs * 32 // 16 * 2  # minibatches of one update of two epochs
    for key, value in weights(one).items():
        torch.testing.assert_close(value, start[key] * 0.5**steps)


def test_gradients_are_looked_at_before_they_are_bounded() -> None:
    """One step of A2C at step size 0: the gradient is that of the loss, the bound is kept."""
    rule = UpdateRule(torch.optim.SGD, {"lr": 0.0})
    norms = {}
    for bound in (1e-3, 1e6):
        options = SB3A2COptions(num_envs=2, max_grad_norm=bound)
        with sb3.own_generators():
            one = sb3.A2C(1, envs("A2C", 2), MLPOptions(widths=(12, 8)), rule, options)
            assert one.gradient_views() == {}
            one.learn(10, Nothing())
        norms[bound] = total_norm(one.gradient_views())
        left = {key: p.grad for key, p in one.network.named_parameters() if p.grad is not None}
        assert total_norm(left) == pytest.approx(min(bound, norms[bound]), rel=1e-3)
    assert norms[1e-3] == norms[1e6] > 1e-2


def total_norm(gradients: Mapping[str, Tensor]) -> float:
    return torch.cat([value.flatten() for value in gradients.values()]).norm().item()


def test_the_critics_gradient_is_that_of_their_own_loss() -> None:
    """TD3's actor loss leaves gradients in the critics, which no step uses."""
    one = trained("TD3")
    present = {key: p.grad for key, p in one.network.named_parameters() if p.grad is not None}
    kept = one.gradient_views()
    assert kept.keys() == present.keys() == dict(one.network.named_parameters()).keys()
    first = "critic.qf0.0.weight"
    assert not torch.equal(kept[first][0], present[first])


def test_a_learner_that_breaks_says_so() -> None:
    with sb3.own_generators():
        for name in OPTIONS:
            one = learner(name, UpdateRule(torch.optim.SGD, {"lr": 1e30}))
            with pytest.raises(sb3.Diverged):
                one.learn(500, Nothing())


def test_the_process_s_generators_are_left_alone() -> None:
    def draw() -> tuple[float, ...]:
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    expected = draw()
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    trained("DQN")
    assert draw() == expected


class Counting(gym.Env[Any, Any]):
    """Shows the step; ends with it, or is cut, at the third."""

    observation_space = spaces.Box(0, 100, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, cut: bool) -> None:
        self.cut = cut

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.array([0], np.float32), {"task": 9}

    def step(self, action: Any) -> Any:
        self.t += 1
        ends = self.t == 3
        seen = np.array([self.t], np.float32)
        return seen, float(self.t), ends and not self.cut, ends and self.cut, {"task": self.t}


def test_lanes_reset_in_the_step_of_an_end() -> None:
    made = SyncVectorEnv([lambda: Counting(False), lambda: Counting(True)], **NO_RESET)
    calls: list[tuple[Any, ...]] = []
    lanes = sb3.Lanes(made, [1, 2], lambda *one: calls.append(one))
    assert lanes.reset().tolist() == [[0], [0]]
    steps = [lanes.step(np.zeros(2, np.int64)) for _ in range(4)]
    assert [seen[:, 0].tolist() for seen, *_ in steps] == [[1, 1], [2, 2], [0, 0], [1, 1]]
    assert [rewards.tolist() for _, rewards, _, _ in steps] == [[1, 1], [2, 2], [3, 3], [1, 1]]
    assert [ended.tolist() for _, _, ended, _ in steps] == [[i == 2] * 2 for i in range(4)]
    assert [steps[i][3] for i in (0, 1, 3)] == [[{}, {}]] * 3
    last = steps[2][3]
    assert [info["terminal_observation"].tolist() for info in last] == [[3], [3]]
    assert [info["TimeLimit.truncated"] for info in last] == [False, True]
    assert [seen[:, 0].tolist() for seen, *_ in calls] == [[1, 1], [2, 2], [0, 0], [1, 1]]
    # The task in which the step was taken, not that of the next episode.
    assert [info["task"].tolist() for *_, info in calls] == [[1, 1], [2, 2], [3, 3], [1, 1]]


def test_only_lanes_that_ended_begin_anew() -> None:
    made = gym.make_vec("CartPole-v1", 3, vectorization_mode="sync", vector_kwargs=NO_RESET)
    lanes = sb3.Lanes(made, [1, 2, 3], lambda *_: None)
    before = lanes.reset()
    falls = np.array([1, 0, 0])  # the first is always pushed to the right, the others waver
    for step in range(12):
        seen, _, ended, infos = lanes.step(np.where(falls, 1, step % 2))
        kept = before.copy()
        for lane in range(3):
            last = infos[lane].get("terminal_observation", seen[lane])
            assert np.abs(last - kept[lane]).max() < 1.0
        assert (np.abs(seen[ended]) <= 0.05).all()
        before = seen
        if ended.any():
            break
    assert ended.tolist() == [True, False, False]
    assert abs(infos[0]["terminal_observation"][2]) > 0.2


@pytest.mark.parametrize(
    ("name", "network", "message"),
    [
        ("PPO", {"activation": "crelu"}, "network.activation: sb3:PPO has no crelu; expected one"),
        ("DQN", {"layer_norm": True}, "network.layer_norm: sb3:DQN has none; expected false"),
        ("PPO", {"batch_norm": True}, "network.batch_norm: sb3:PPO has none; expected false"),
        ("SAC", {"dropout": 0.1}, "network.dropout: sb3:SAC has none; expected 0"),
        ("A2C", {"init": "kaiming"}, "network.init: sb3:A2C cannot start from kaiming; expected"),
        ("SAC", {"init": "orthogonal"}, "network.init: sb3:SAC cannot start from orthogonal"),
    ],
)
def test_networks_it_cannot_build(name: str, network: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        learner(name, **network)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("made", "env", "options", "message"),
    [
        (sb3.SAC, "CartPole-v1", SB3SACOptions(), "actions: sb3:SAC expected Box with one axis"),
        (sb3.DQN, "Pendulum-v1", SB3DQNOptions(), "actions: sb3:DQN expected Discrete, got Box"),
        (sb3.PPO, "FrozenLake-v1", SB3PPOOptions(), "observations: expected a Box with one axis"),
        (
            sb3.PPO,
            "CartPole-v1",
            SB3PPOOptions(n_steps=100),
            r"agent.batch_size: expected a divisor of num_envs \* n_steps \(100\), got 64",
        ),
        (sb3.PPO, "CartPole-v1", SB3PPOOptions(batch_size=1), "agent.batch_size: expected at le"),
        (
            sb3.A2C,
            "CartPole-v1",
            SB3A2COptions(n_steps=1, normalize_advantage=True),
            "agent.n_steps: expected at least 2",
        ),
    ],
)
def test_what_does_not_suit(made: Any, env: str, options: Any, message: str) -> None:
    one = gym.make_vec(env, 1, vectorization_mode="sync", vector_kwargs=NO_RESET)
    with pytest.raises(UsageError, match=message) as caught:
        made(0, one, MLPOptions(), ADAM, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("activation", ["leaky-relu", "sigmoid", "elu", "swish"])
def test_every_other_activation(activation: str) -> None:
    one = learner("PPO", activation=activation, leaky_slope=0.3)
    layer = one.network.hidden_layers[0]
    module = one.network.get_submodule(layer.activation)
    x = torch.linspace(-2, 2, 9)
    expected = {
        "leaky-relu": torch.where(x > 0, x, 0.3 * x),
        "sigmoid": torch.sigmoid(x),
        "elu": nn.functional.elu(x),
        "swish": nn.functional.silu(x),
    }
    torch.testing.assert_close(module(x), expected[activation])
    assert layer.function == activation


class Saving(BaseCallback):
    """Packs the state of learner and environments at the start of a rollout, as a checkpoint."""

    def __init__(self, one: sb3.Learner, world: Any, at: int) -> None:
        super().__init__()
        self.one, self.world, self.left = one, world, at
        self.saved = b""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if not self.left:
            self.saved = checkpoint.pack(
                {"learner": self.one.state_dict(), "envs": state_dict(self.world)}
            )
        self.left -= 1


@pytest.mark.parametrize("at", [0, 2, 6])
@every_algorithm
def test_a_fresh_learner_goes_on_from_a_state_exactly(name: str, at: int) -> None:
    """DQN, SAC and TD3 act at random before step 20; PPO has two rollouts."""
    at = min(at, 1) if name == "PPO" else at
    steps = 96 if name == "PPO" else STEPS
    options = OPTIONS[name]

    def made(seed: int) -> tuple[sb3.Learner, Any]:
        world = envs(name, options.num_envs)
        shape = MLPOptions(widths=(12, 8))
        return getattr(sb3, name)(seed, world, shape, ADAM, options), world

    def end(one: sb3.Learner) -> list[Any]:
        return [one.losses(), one.model.num_timesteps, weights(one), one.gradient_views()] + [
            value.clone() for value in one.model.policy.state_dict().values()
        ]

    with sb3.own_generators():
        one, world = made(1)
        saving = Saving(one, world, at)
        one.learn(steps, saving)
        wanted = end(one)
    state = checkpoint.unpack(saving.saved, Path("state"))
    with sb3.own_generators():
        other, world = made(1)
        np.random.rand(5), torch.rand(3), random.random(), other.model.action_space.sample()
        other.load_state_dict(state["learner"])
        load_state_dict(world, state["envs"])
        other.learn(steps, Nothing())
        torch.testing.assert_close(end(other), wanted, rtol=0, atol=0)
