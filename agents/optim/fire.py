"""Frobenius-isometry re-initialisation (Han et al. 2026), over any base optimizer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clrl.agents.networks import maps
from clrl.agents.optim.members import Members
from clrl.agents.optim.options import FIREOptions
from clrl.agents.optim.surgery import Surgery


class FIRE(Surgery):
    """At a change of task each weight matrix becomes the isometry that is nearest to it.

    Han et al., "FIRE", ICLR 2026, after a re-implementation. For a dense layer, with W = U S V^T::

        W <- sqrt(outputs / inputs) U V^T

    so that singular vectors stay and singular values are all the same. U V^T is found by
    ``iterations`` of Newton and Schulz, X <- 1.5 X - 0.5 X X^T X from W / |W|; of a matrix with
    very small singular values, these are then not yet 1. Of a convolution each place of the
    kernel is such a matrix, and the result is divided by the number of places. Biases, norms and
    weights that are all 0 are left alone; the optimizer's state is all new.

    Args:
        members: the learners.
        every: updates from one operation to the next; 0 for one at each change of task. In the
            paper's reinforcement learning there is one, halfway: half of the updates, with
            ``times=1``.
        times: the most operations; 0 for no bound.
        iterations: of Newton and Schulz.
    """

    default_every = FIREOptions.every

    def __init__(
        self,
        members: Members,
        every: int = FIREOptions.every,
        times: int = FIREOptions.times,
        iterations: int = FIREOptions.iterations,
    ) -> None:
        super().__init__(members, every, times)
        self.iterations = iterations
        self._weights = [own.weight for own in maps(members.network)]

    def operate(self, member: int) -> None:
        """Operate on the weights of one learner."""
        for name in self._weights:
            weight = self.members.parameters[name][member]
            weight.copy_(isometry(weight, self.iterations))
        for name in self.members.parameters:
            self.members.reset_state(name, member, (...,))


def isometry(weight: Tensor, iterations: int) -> Tensor:
    """The isometry nearest to a weight, in the scale of `FIRE`.

    Args:
        weight: [outputs, inputs, *kernel].
        iterations: of Newton and Schulz.

    Returns:
        A tensor of the weight's shape.
    """
    outputs, inputs = weight.shape[:2]
    places = weight[0, 0].numel()
    matrices = weight.flatten(2).movedim(2, 0) if weight.ndim > 2 else weight.unsqueeze(0)
    new = polar(matrices, iterations) * (math.sqrt(outputs / inputs) / places)
    return new.movedim(0, 2).reshape(weight.shape)


def polar(matrices: Tensor, iterations: int) -> Tensor:
    """U V^T of matrices [number, m, n] with the decompositions U S V^T; of a 0 one, 0."""
    if matrices.shape[1] < matrices.shape[2]:
        return polar(matrices.mT, iterations).mT
    norms = torch.linalg.matrix_norm(matrices, keepdim=True)
    x = matrices / torch.where(norms > 0, norms, 1.0)
    for _ in range(iterations):
        x = 1.5 * x - 0.5 * x @ (x.mT @ x)
    return x
