"""SOAP (Vyas et al. 2025): Adam in the directions along which gradients vary by themselves."""

from __future__ import annotations

from typing import Any

from clrl.agents.optim.library import FromLibrary
from clrl.agents.optim.options import SOAPOptions


class SOAP(FromLibrary):
    """Adam, of each weight in the eigenbases of what its gradients' rows and columns correlate by.

    Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam" (ICLR 2025); official code
    nikhilvyas/SOAP; computed by the library pytorch_optimizer (``pip install 'clrl[optimizers]'``).
    For a weight with gradient G [outputs, inputs]::

        L <- beta_2 L + (1 - beta_2) G G^T,    R <- beta_2 R + (1 - beta_2) G^T G
        W <- (1 - lr weight_decay) W - lr Q_L adam(Q_L^T G Q_R) Q_R^T

    with Q_L and Q_R the eigenvectors of L and R, found anew every so many steps by one step of
    power iteration and a QR decomposition. Biases and other vectors are Adam's. The first step of
    all finds the eigenvectors, and moves nothing. Stacked learners are stepped one by one.

    Where weights start anew, what is averaged of each of them goes to 0; L and R, which are of
    whole rows and columns, go on, and so does the count of steps.

    Args:
        params: parameters or parameter groups.
        lr: step size.
        betas: decay rates of the averages of g and of its square; the second one of L and R too.
        eps: added to the root of the second average.
        weight_decay: decoupled: each step also takes ``lr * weight_decay * w`` off w.
        every: steps from one renewal of the eigenvectors to the next.

    Raises:
        UsageError: the library is not installed.
    """

    def __init__(
        self,
        params: Any,
        lr: float = SOAPOptions.lr,
        betas: tuple[float, float] = SOAPOptions.betas,
        eps: float = SOAPOptions.eps,
        weight_decay: float = SOAPOptions.weight_decay,
        every: int = SOAPOptions.every,
    ) -> None:
        super().__init__(
            "SOAP",
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            precondition_frequency=every,
        )
