"""torch's tensors under NumPy's names, for physics that is computed where learners are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class TorchArrays:
    """As much of NumPy as `clrl.envs.classic.ClassicVectorEnv` computes with, on a device.

    Functions have NumPy's names, arguments and default types, and give tensors.

    Args:
        device: where.
    """

    bool_, float32, float64 = torch.bool, torch.float32, torch.float64
    abs, cos, sin, square = torch.abs, torch.cos, torch.sin, torch.square
    rint, minimum, maximum, where = torch.round, torch.minimum, torch.maximum, torch.where
    concatenate = torch.cat

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def zeros(self, shape: Any, dtype: torch.dtype = torch.float64) -> Tensor:
        """Zeros."""
        return self.full(shape, 0, dtype)

    def ones(self, shape: Any, dtype: torch.dtype = torch.float64) -> Tensor:
        """Ones."""
        return self.full(shape, 1, dtype)

    def full(self, shape: Any, value: float, dtype: torch.dtype = torch.float64) -> Tensor:
        """One number throughout."""
        shape = (shape,) if isinstance(shape, int) else shape
        return torch.full(shape, value, dtype=dtype, device=self._device)

    def array(self, rows: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """A new tensor of tensors."""
        return torch.stack(tuple(rows)).to(dtype)

    def asarray(self, values: Tensor | NDArray[Any], dtype: torch.dtype | None = None) -> Tensor:
        """A tensor of these numbers: the tensor itself where that will do."""
        return torch.as_tensor(values, dtype=dtype, device=self._device)

    def asnumpy(self, values: Tensor) -> NDArray[Any]:
        """The numbers as NumPy's array."""
        array: NDArray[np.generic] = values.cpu().numpy()
        return array
