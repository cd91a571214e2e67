"""The tables of agents and networks. Data only: nothing here imports torch."""

from __future__ import annotations

from clrl.registry import Entry, Table

AGENTS = Table(
    "agent",
    [
        Entry(
            "supervised",
            "learns a stream of labelled examples online",
            "clrl.agents.supervised:Supervised",
            "clrl.agents.options:SupervisedOptions",
        ),
        Entry(
            "ppo",
            "proximal policy optimization, on control tasks",
            "clrl.agents.ppo:PPO",
            "clrl.agents.options:PPOOptions",
        ),
        *(
            Entry(
                f"sb3:{name}",
                f"Stable-Baselines3's {name}, on control tasks{actions}",
                f"clrl.agents.sb3:{name}",
                f"clrl.agents.options:SB3{name}Options",
            )
            for name, actions in (
                ("PPO", ""),
                ("A2C", ""),
                ("DQN", " with discrete actions"),
                ("SAC", " with continuous actions"),
                ("TD3", " with continuous actions"),
            )
        ),
    ],
    group="clrl.agents",
)

NETWORKS = Table(
    "network",
    [
        Entry(
            "mlp",
            "fully connected layers",
            "clrl.agents.networks:MLP",
            "clrl.agents.options:MLPOptions",
        ),
        Entry(
            "residual-mlp",
            "fully connected, in residual blocks (as in SimBa, Lee et al. 2025)",
            "clrl.agents.networks:ResidualMLP",
            "clrl.agents.options:ResidualMLPOptions",
        ),
        Entry(
            "bronet",
            "residual blocks with two norms each (Nauman et al. 2024)",
            "clrl.agents.networks:BroNet",
            "clrl.agents.options:BroNetOptions",
        ),
        Entry(
            "simba-v2",
            "features and weights that are unit vectors (Lee et al. 2025)",
            "clrl.agents.networks:SimbaV2",
            "clrl.agents.options:SimbaV2Options",
        ),
    ],
)
