"""What learns: networks, update rules and the population engine (torch).

This package knows nothing of environments, files or the recorder. What is named here is loaded when
it is first asked for, since the tables of agents, which lie inside, do without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clrl.agents.calling import Forward
    from clrl.agents.consolidation.base import Method
    from clrl.agents.objective import Loss
    from clrl.agents.options import MLPOptions, PPOOptions, SupervisedOptions
    from clrl.agents.population import Population
    from clrl.agents.ppo import PPO, ActorCritic, Rollout, gae
    from clrl.agents.supervised import Supervised

__all__ = [
    "PPO",
    "ActorCritic",
    "Forward",
    "Loss",
    "MLPOptions",
    "Method",
    "PPOOptions",
    "Population",
    "Rollout",
    "Supervised",
    "SupervisedOptions",
    "gae",
]

_HOMES = {
    "ActorCritic": "ppo",
    "Forward": "calling",
    "Loss": "objective",
    "MLPOptions": "options",
    "Method": "consolidation.base",
    "PPO": "ppo",
    "PPOOptions": "options",
    "Population": "population",
    "Rollout": "ppo",
    "Supervised": "supervised",
    "SupervisedOptions": "options",
    "gae": "ppo",
}


def __getattr__(name: str) -> Any:
    """Load a name of `__all__` when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
