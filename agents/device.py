"""Where a population's arithmetic is done."""

from __future__ import annotations

import torch

from clrl.errors import UsageError

CPU = torch.device("cpu")


def device_of(name: str) -> torch.device:
    """A device by its name, such as ``cpu`` or ``cuda``.

    Raises:
        UsageError: torch can use none of that kind here.
    """
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        reason = "sees none" if torch.version.cuda else "is built without CUDA"
        raise UsageError(
            f"--device {name}: expected a GPU, but torch {torch.__version__} {reason} here"
        )
    return device
