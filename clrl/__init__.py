"""clrl: a benchmark suite for continual reinforcement learning.

The Python interface is here, and loads what it needs when it is used:

    import clrl

    runs = clrl.run("offset-cartpole", optimizer={"name": "adam", "lr": 1e-3}, seeds=range(8))
    runs.curve("online/return")

Environments are in `clrl.envs`, learners in `clrl.agents`, update rules in `clrl.optim`, networks
in `clrl.networks`, metrics in `clrl.metrics`, and checks of plug-ins in `clrl.testing`.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from clrl.errors import RunsFailed, StorageError, UsageError
from clrl.version import __version__

if TYPE_CHECKING:
    from clrl.report.recorded import Curve, Recorded, load
    from clrl.runs import run, suite
    from clrl.training.policy import Policy, load_policy

__all__ = [
    "Curve",
    "Policy",
    "Recorded",
    "RunsFailed",
    "StorageError",
    "UsageError",
    "__version__",
    "load",
    "load_policy",
    "run",
    "suite",
]

_HOMES = {
    "Curve": "report.recorded",
    "Policy": "training.policy",
    "Recorded": "report.recorded",
    "load": "report.recorded",
    "load_policy": "training.policy",
    "run": "runs",
    "suite": "runs",
}
_FACES = ("agents", "envs", "metrics", "networks", "optim", "testing")


def __getattr__(name: str) -> Any:
    """Load a part of the interface when it is first asked for."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _FACES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FACES})


# MKL may choose another order of summation when the same matrices lie at other addresses,
# and then a member's bits would depend on who sits beside it. Strict mode forbids that.
# MKL reads the variable at its first call, so it is set before anything loads torch.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# A process that has asked CUDA for its devices can have no children that use them, and workers
# fork. With this torch asks the driver's management library (NVML) whether there are any.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
