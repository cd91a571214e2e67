"""Optimizers of a library that is kept elsewhere, and installed where it is wanted."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from clrl.errors import UsageError


class FromLibrary(torch.optim.Optimizer):
    """An optimizer of pytorch_optimizer, as one of ours: it shares groups and state with it.

    Args:
        kind: the name of its class there, and of ours.
        params: parameters or parameter groups.
        options: keywords of that class.

    Raises:
        UsageError: the library is not installed.
    """

    def __init__(self, kind: str, params: Any, **options: Any) -> None:
        try:
            library = importlib.import_module("pytorch_optimizer")
        except ModuleNotFoundError as error:
            raise UsageError(
                f"optimizer {kind.lower()}: pytorch_optimizer is missing: "
                "pip install 'clrl[optimizers]'"
            ) from error
        inner: torch.optim.Optimizer = getattr(library, kind)(params, **options)
        super().__init__(inner.param_groups, inner.defaults)
        self._inner = inner
        self.state = inner.state

    def step(self, closure: Any = None) -> Any:
        """One step of all parameters that have a gradient; what the closure gave, if any."""
        return self._inner.step(closure)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._inner.load_state_dict(state_dict)
        self.state = self._inner.state
        self.param_groups = self._inner.param_groups
