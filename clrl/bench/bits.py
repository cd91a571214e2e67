"""``clrl bits``: what the look at this processor finds, for learners as suites have them.

A look is part of the start of every training (`clrl.agents.even`). Here it is taken on its own, and
what it found is shown: how many members are stacked, and which products of matrices are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from rich.console import Console
from rich.table import Table
from torch import Tensor

from clrl.agents.actions import actions_of
from clrl.agents.networks import MLP, Network
from clrl.agents.objective import Loss
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions, PPOOptions
from clrl.agents.population import Population
from clrl.agents.ppo.actor_critic import ActorCritic
from clrl.agents.ppo.loss import make_loss
from clrl.agents.supervised import classification_loss
from clrl.launch import process
from clrl.storage.provenance import CHOOSING, provenance

MEMBERS = 5


@dataclass(frozen=True)
class Case:
    """A learner's shapes.

    Attributes:
        what: in words.
        make: a network of a generator.
        loss: of one learner.
        batch: one member's batch.
    """

    what: str
    make: Callable[[torch.Generator], Network]
    loss: Loss
    batch: tuple[Tensor, ...]


def main() -> None:
    """Look, and print what was found."""
    process.set_up()
    found = provenance()
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)
    console.print(f"{found['processor']}, torch {found['torch']}, one thread")
    chosen = ", ".join(f"{name} {found[name] or 'not set'}" for name in CHOOSING)
    console.print(f"kernels: {torch.backends.cpu.get_cpu_capability()}; {chosen}")
    table = Table("learners", "members", "alone", "look, ms")
    for case in _cases():
        together, alone = _population(case, MEMBERS), _population(case, 1)
        forms = [look.doubled for look in alone.looks]
        table.add_row(
            case.what,
            together.evenness(),
            f"{sum(forms)} products doubled" if any(forms) else "as they are",
            f"{1000 * max(look.seconds for look in together.looks):.0f}",
        )
    console.print(table)
    console.print(
        f"members: {MEMBERS} of them, beside each other; alone: products that a member by itself "
        "computes as a stack of two copies, where the kernel for a single pair rounds otherwise; "
        "look: what it took of the processor's time"
    )


def _population(case: Case, members: int) -> Population:
    """Learners after one update."""
    seeds = range(members)
    population = Population(
        [case.make(torch.Generator().manual_seed(seed)) for seed in seeds],
        case.loss,
        UpdateRule(torch.optim.SGD, {"lr": 1e-3}),
        [torch.Generator().manual_seed(seed) for seed in seeds],
    )
    population.learn(*(value.expand(members, 1, *value.shape) for value in case.batch))
    return population


def _cases() -> list[Case]:
    return [
        _stream("digits, 64-32, batch 1", 64, (64, 32), 1),
        _stream("MNIST, 300-150, batch 1", 784, (300, 150), 1),
        _stream("MNIST, 100-100, batch 32", 784, (100, 100), 32),
        _ppo("PPO, CartPole, 64-64, batch 64", 4, spaces.Discrete(2), (64, 64), 64),
        _ppo("PPO, HalfCheetah, 64-64, batch 64", 17, _box(6), (64, 64), 64),
        _ppo("PPO, Ant, 256-256, batch 128", 27, _box(8), (256, 256), 128),
    ]


def _box(size: int) -> spaces.Box:
    return spaces.Box(-np.ones(size, np.float32), np.ones(size, np.float32))


def _stream(what: str, inputs: int, widths: tuple[int, ...], batch: int) -> Case:
    options = MLPOptions(widths=widths)
    x = torch.rand(batch, inputs, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(batch, dtype=torch.int64)
    return Case(what, lambda own: MLP(inputs, 10, options, own), classification_loss, (x, y))


def _ppo(
    what: str, inputs: int, space: spaces.Space[Any], widths: tuple[int, ...], batch: int
) -> Case:
    actions = actions_of(space)
    options = MLPOptions(widths=widths, activation="tanh", init="orthogonal")
    source = torch.Generator().manual_seed(0)

    def make(own: torch.Generator) -> Network:
        return ActorCritic(
            inputs,
            actions,
            lambda size, outputs, own, gain: MLP(size, outputs, options, own, gain),
            False,
            0.0,
            own,
        )

    def drawn(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=source)

    taken = torch.zeros(batch, actions.width)
    numbers = (drawn(), drawn(), drawn(), drawn())
    loss = make_loss(actions, PPOOptions(batch_size=batch))
    return Case(what, make, loss, (drawn(inputs), taken, *numbers, torch.ones(batch)))
