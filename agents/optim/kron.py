"""PSGD Kron (Li 2018): steps preconditioned by Kronecker products that are learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from clrl.agents.optim.library import FromLibrary
from clrl.agents.optim.options import KronOptions
from clrl.errors import UsageError


class Kron(FromLibrary):
    """Momentum, preconditioned by a Kronecker product of triangular matrices.

    Li, "Preconditioned stochastic gradient descent" (2018), in the form that goes by the name of
    Kron; computed by the library pytorch_optimizer (``pip install 'clrl[optimizers]'``), with its
    settings. In public suites of continual reinforcement learning it is run as its library has it.
    The matrices of a weight are learned from its momentum and from noise: in each of the
    first 500 steps, then more and more rarely, up to every 33rd. A step is no longer than 1.1 on
    average over a tensor's numbers. Stacked learners are stepped one by one.

    Args:
        params: parameters or parameter groups, on the CPU.
        lr: step size.
        momentum: decay rate of the average of g.
        weight_decay: decoupled, of weights and not of biases.
        generator: where the noise comes from; the optimizer's own, from seed 0, unless given.

    Raises:
        UsageError: the library or opt_einsum is not installed, or parameters are elsewhere.
    """

    def __init__(
        self,
        params: Any,
        lr: float = KronOptions.lr,
        momentum: float = KronOptions.momentum,
        weight_decay: float = KronOptions.weight_decay,
        generator: torch.Generator | None = None,
    ) -> None:
        if not torch.backends.opt_einsum.is_available():
            raise UsageError(
                "optimizer kron: opt_einsum is missing, without which its products take gigabytes: "
                "pip install 'clrl[optimizers]'"
            )
        super().__init__("Kron", params, lr=lr, momentum=momentum, weight_decay=weight_decay)
        self._generator = generator or torch.Generator().manual_seed(0)
        if any(not one.is_cpu for group in self.param_groups for one in group["params"]):
            raise UsageError(
                "optimizer kron: draws where parameters are; expected --device cpu, where seeds "
                "decide what is drawn"
            )

    def step(self, closure: Any = None) -> Any:
        """One step; what the closure gave, if any.

        The library draws from global generators, which are set for it and then put back.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        seed = int(torch.randint(2**32, (), generator=self._generator))
        of_numpy = np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
            np.random.seed(seed)
            try:
                super().step()
            finally:
                np.random.set_state(of_numpy)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """What the library keeps, and the generator's state."""
        return {**super().state_dict(), "generator": self._generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        state = dict(state_dict)
        self._generator.set_state(state.pop("generator"))
        super().load_state_dict(state)
