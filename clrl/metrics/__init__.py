"""Metrics: pure functions of arrays, one definition a name.

Those of plasticity take torch's tensors; those of continual learning take what NumPy takes. What is
named here is loaded when it is first asked for, since the table of metrics does without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clrl.metrics.continual import (
        average_accuracy,
        backward_transfer,
        forgetting,
        forward_transfer,
        learning_accuracy,
        loss_of_plasticity,
        max_forgetting,
        recovery_time,
        retained_accuracy,
        task_performance,
    )
    from clrl.metrics.measuring import load_metrics, measure
    from clrl.metrics.plasticity import (
        approximate_rank,
        dead_units,
        dormant_units,
        effective_rank,
        grad_norm,
        grad_zero_fraction,
        inactive_units,
        singular_values,
        srank,
        stable_rank,
        step_plasticity,
        weight_change,
        weight_magnitude,
        weight_norm,
        zero_activations,
    )

__all__ = [
    "approximate_rank",
    "average_accuracy",
    "backward_transfer",
    "dead_units",
    "dormant_units",
    "effective_rank",
    "forgetting",
    "forward_transfer",
    "grad_norm",
    "grad_zero_fraction",
    "inactive_units",
    "learning_accuracy",
    "load_metrics",
    "loss_of_plasticity",
    "max_forgetting",
    "measure",
    "recovery_time",
    "retained_accuracy",
    "singular_values",
    "srank",
    "stable_rank",
    "step_plasticity",
    "task_performance",
    "weight_change",
    "weight_magnitude",
    "weight_norm",
    "zero_activations",
]

_PARTS = ("continual", "measuring", "plasticity")


def __getattr__(name: str) -> Any:
    """Load a name of `__all__` when it is first asked for."""
    for part in _PARTS if name in __all__ else ():
        module = importlib.import_module(f"{__name__}.{part}")
        if hasattr(module, name):
            globals()[name] = getattr(module, name)
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
