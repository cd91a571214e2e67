"""Contracts that anybody's plug-in can be held against: the suites that our own entries pass.

Each check takes a class, a function or ``package.module:Name``, with its options as keywords:

    from clrl.testing import check_optimizer

    check_optimizer("my_rules:AnchoredAdam", lr=1e-2)

It raises `Broken`, whose message is one line that says which promise does not hold and where, or
returns the promises that held. Since a state must come back in a new process, what is checked lies
in a module that can be imported.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clrl.testing.agents import check_agent
    from clrl.testing.environments import check_environment
    from clrl.testing.metrics import check_metric
    from clrl.testing.networks import check_network
    from clrl.testing.penalties import check_penalty
    from clrl.testing.promises import Broken
    from clrl.testing.rules import check_addon, check_optimizer
    from clrl.testing.streams import check_stream
    from clrl.testing.units import check_unit_reset

__all__ = [
    "Broken",
    "check_addon",
    "check_agent",
    "check_environment",
    "check_metric",
    "check_network",
    "check_optimizer",
    "check_penalty",
    "check_stream",
    "check_unit_reset",
]

_HOMES = {
    "Broken": "promises",
    "check_addon": "rules",
    "check_agent": "agents",
    "check_environment": "environments",
    "check_metric": "metrics",
    "check_network": "networks",
    "check_optimizer": "rules",
    "check_penalty": "penalties",
    "check_stream": "streams",
    "check_unit_reset": "units",
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
