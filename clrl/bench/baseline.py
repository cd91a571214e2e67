"""The plain PyTorch loop that the engine is measured against.

It is what a one-off script looks like: a ``Dataset`` with per-sample transforms, a
``DataLoader``, ``nn.Sequential``, an optimizer, one seed. UPGD is written a parameter at a
time in Python. It runs as a script of its own: ``python -m clrl.bench.baseline RULE IMAGES
LABELS EXAMPLES`` answers each line of its input with the processor seconds an example took.
"""

from __future__ import annotations

import gzip
import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler


class _PermutedImages(Dataset[tuple[Tensor, int]]):
    """Images that are scaled, centred and permuted as they are asked for."""

    def __init__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        self.images = images
        self.labels = labels
        self.permutation = torch.randperm(images.shape[1], generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index].to(torch.float32) / 255
        image = (image - 0.5) / 0.5
        return image[self.permutation], int(self.labels[index])


class PlainUPGD(torch.optim.Optimizer):
    """First-order global UPGD, a parameter at a time; no care for speed."""

    def __init__(self, params: Any, lr: float, sigma: float, beta: float, decay: float) -> None:
        super().__init__(params, {"lr": lr, "sigma": sigma, "beta": beta, "decay": decay})
        self.generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update."""
        largest = torch.tensor(-torch.inf)
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["step"], state["utility"] = 0, torch.zeros_like(p)
                state["step"] += 1
                utility = -p.grad * p
                state["utility"].mul_(group["beta"]).add_(utility, alpha=1 - group["beta"])
                largest = torch.maximum(largest, state["utility"].max())
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                corrected = state["utility"] / (1 - group["beta"] ** state["step"])
                scale = torch.sigmoid(corrected / largest)
                noise = torch.randn(p.shape, generator=self.generator) * group["sigma"]
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_((p.grad + noise) * (1 - scale), alpha=-group["lr"])


def learn(rule: str, images: Tensor, labels: Tensor) -> Iterator[float]:
    """Train on input-permuted images, an example at a time, for ever.

    Args:
        rule: ``"sgd"``, ``"adam"`` or ``"upgd"``.
        images: [examples, 784] uint8.
        labels: [examples] int64.

    Yields:
        The running online accuracy after each example.
    """
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 150), nn.ReLU(), nn.Linear(150, 10)
    )
    makers: dict[str, Any] = {
        "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, weight_decay=1e-3),
        "adam": lambda p: torch.optim.Adam(p, lr=1e-4, betas=(0.0, 0.99)),
        "upgd": lambda p: PlainUPGD(p, lr=0.01, sigma=0.1, beta=0.9999, decay=0.01),
    }
    optimizer = makers[rule](network.parameters())
    criterion = nn.CrossEntropyLoss()
    dataset = _PermutedImages(images, labels, generator)
    sampler = RandomSampler(dataset, generator=generator)
    seen, correct = 0, 0.0
    while True:
        for x, y in DataLoader(dataset, batch_size=1, sampler=sampler, generator=generator):
            output = network(x)
            loss = criterion(output, y)
            correct += (output.argmax(dim=1) == y).float().item()
            seen += 1
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield correct / seen


def _read(path: str, header: int) -> Tensor:
    opened = gzip.open(path) if path.endswith(".gz") else open(path, "rb")
    with opened as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy())


def main(rule: str, images: str, labels: str, examples: str) -> None:
    """Answer each line of the input with a measurement."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as in the engine's process
    loop = learn(rule, _read(images, 16).view(-1, 784), _read(labels, 8))
    for _ in sys.stdin:
        start = time.process_time()
        for _ in itertools.islice(loop, int(examples)):
            pass
        print((time.process_time() - start) / int(examples), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
