"""What goes with an agent where nothing is said: its network, update rule and their settings.

Data only: nothing here imports torch. What is not here, the options' own dataclasses have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class AgentDefaults:
    """What an agent starts from.

    Attributes:
        benchmark: what it is trained on where nothing is named.
        optimizer: the update rule that is taken where none is named; also an add-on's base.
        network: the network that is taken where none is named.
        options: of networks, update rules and add-ons, by name: what differs from their own
            defaults under this agent, whether it was named or not.
    """

    benchmark: str = "permuted-digits"
    optimizer: str = "sgd"
    network: str = "mlp"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _mlp(*widths: int, activation: str = "relu", init: str = "torch") -> dict[str, Any]:
    return {"widths": widths, "activation": activation, "init": init}


_ON_POLICY = {
    "mlp": _mlp(64, 64, activation="tanh", init="orthogonal"),
    "adam": {"lr": 3e-4},
    "adamw": {"lr": 3e-4},
    "sgd": {"lr": 0.3},
    "upgd": {
        "lr": 0.3,
        "sigma": 1e-3,
        "beta_utility": 0.999,
        "weight_decay": 0.0,
        "lr_factor": 2.0,
    },
}
"""Adam's step size as in Stable-Baselines3; SGD's and UPGD's are ours (CartPole and Acrobot)."""

_SB3_ON_POLICY = {**_ON_POLICY, "adam": {"lr": 3e-4, "eps": 1e-5}}


def _off_policy(lr: float, *widths: int) -> dict[str, Mapping[str, Any]]:
    return {"mlp": _mlp(*widths), "adam": {"lr": lr}, "adamw": {"lr": lr}, "adaupgd": {"lr": lr}}


def _acting(
    optimizer: str, options: Mapping[str, Mapping[str, Any]], benchmark: str = "offset-cartpole"
) -> AgentDefaults:
    return AgentDefaults(benchmark, optimizer, options=options)


DEFAULTS: Mapping[str, AgentDefaults] = {
    "supervised": AgentDefaults(),
    "ppo": _acting("adam", _ON_POLICY),
    "sb3:PPO": _acting("adam", _SB3_ON_POLICY),
    "sb3:A2C": _acting("rmsprop", {**_SB3_ON_POLICY, "rmsprop": {"lr": 7e-4, "eps": 1e-5}}),
    "sb3:DQN": _acting("adam", _off_policy(1e-4, 64, 64)),
    "sb3:SAC": _acting("adam", _off_policy(3e-4, 256, 256), "slippery-half-cheetah"),
    "sb3:TD3": _acting("adam", _off_policy(1e-3, 400, 300), "slippery-half-cheetah"),
}
"""By agent; of others, plug-ins among them, `AgentDefaults()`. Networks and Adam of the sb3 agents
are those of Stable-Baselines3 2.9 itself."""


def _wide(lr: float, **agent: Any) -> dict[str, Mapping[str, Any]]:
    normalised = {"normalize_observations": True, "normalize_rewards": "sb3"}
    return {
        "ppo": {"num_envs": 1, "num_steps": 512, **normalised, **agent},
        "mlp": _mlp(256, 256),
        "adam": {"lr": lr, "eps": 1e-5},
        "adamw": {"lr": lr, "eps": 1e-5},
    }


BY_ENVIRONMENT: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "HalfCheetah": _wide(
        2.0633e-5,
        **{"batch_size": 64, "epochs": 20, "gamma": 0.98, "gae_lambda": 0.92, "clip_range": 0.1},
        **{"entropy_coefficient": 0.000401762, "value_coefficient": 0.58096},
        **{"max_grad_norm": 0.8, "log_std": -2.0},
    ),
    "Hopper": _wide(
        9.80828e-5,
        **{"batch_size": 32, "epochs": 5, "gamma": 0.999, "gae_lambda": 0.99},
        **{"entropy_coefficient": 0.00229519, "value_coefficient": 0.835671},
        **{"max_grad_norm": 0.7, "log_std": -2.0},
    ),
}
"""For ppo, options by the name of a Gymnasium environment without its version: those that
rl-baselines3-zoo tuned (``hyperparams/ppo.yml``) for their third version."""
