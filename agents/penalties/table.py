"""The table of penalties on the loss. Data only: nothing here imports torch."""

from __future__ import annotations

from clrl.registry import Entry, Table

_OPTIONS = "clrl.agents.penalties.options:"

PENALTIES = Table(
    "penalty",
    [
        Entry(
            "l2-init",
            "L2 (or L1, or Huber) toward the parameters at the start (Kumar et al. 2023)",
            "clrl.agents.penalties.l2_init:L2Init",
            _OPTIONS + "L2InitOptions",
        ),
        Entry(
            "wasserstein-init",
            "toward how parameters were distributed at the start (Lewandowski et al. 2023)",
            "clrl.agents.penalties.wasserstein_init:WassersteinInit",
            _OPTIONS + "WassersteinInitOptions",
        ),
        Entry(
            "parseval",
            "hidden layers' weights toward orthogonal rows (Chung et al. 2024)",
            "clrl.agents.penalties.parseval:Parseval",
            _OPTIONS + "ParsevalOptions",
        ),
        Entry(
            "spectral",
            "layers' largest singular values toward 1 (Lewandowski et al. 2025)",
            "clrl.agents.penalties.spectral:Spectral",
            _OPTIONS + "SpectralOptions",
        ),
        Entry(
            "infer",
            "features that still hold what they held at the start (Lyle et al. 2022)",
            "clrl.agents.penalties.infer:InFeR",
            _OPTIONS + "InFeROptions",
        ),
        Entry(
            "pfo",
            "PPO's features toward those of its experience (Moalla et al. 2024)",
            "clrl.agents.penalties.pfo:PFO",
            _OPTIONS + "PFOOptions",
        ),
        Entry(
            "c-chain",
            "less change of PPO's policy on other examples (Tang et al. 2025)",
            "clrl.agents.penalties.c_chain:CChain",
            _OPTIONS + "CChainOptions",
        ),
    ],
    group="clrl.penalties",
)
