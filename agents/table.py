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
    ],
)
