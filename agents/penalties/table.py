"""The table of penalties on the loss. Data only: nothing here imports torch."""

from __future__ import annotations

from clrl.registry import Entry, Table

PENALTIES = Table(
    "penalty",
    [
        Entry(
            "l2-init",
            "L2 toward the parameters at the start (Kumar et al. 2023)",
            "clrl.agents.penalties.l2_init:L2Init",
            "clrl.agents.penalties.options:L2InitOptions",
        ),
    ],
    group="clrl.penalties",
)
