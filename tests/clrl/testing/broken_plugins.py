"""Plug-ins that break one promise each."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from clrl_example.environments import Line, PermutedLine
from clrl_example.networks import Shortcut, ShortcutOptions
from clrl_example.streams import TurningLine

from clrl.agents import Method, Supervised, SupervisedOptions
from clrl.networks import HiddenLayer
from clrl.optim import AddOn, Penalty, UnitReset

# Optimizers


class Base(torch.optim.SGD):
    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, lr)

    def each(self) -> list[torch.Tensor]:
        return [p for group in self.param_groups for p in group["params"]]


class NoOptimizer:
    def __init__(self, params: Any) -> None:
        self.params = list(params)

    def zero_grad(self) -> None: ...

    def step(self) -> None: ...


class Replaces(Base):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for p in self.each():
            p.data = p - 0.05 * p.grad


class DropsGradients(Base):
    def step(self, closure: Any = None) -> None:
        super().step()
        self.zero_grad()


class LeavesTheLast(Base):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for p in self.each():
            p.view(-1)[:-1] -= 0.05 * p.grad.view(-1)[:-1]
            p.view(-1)[-38:-37] += 0.05 * p.grad.view(-1)[-38:-37]  # the last before padding


class Explodes(Base):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for p in self.each():
            p.mul_(1e10)


class DrawsFromTorch(Base):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        super().step()
        for p in self.each():
            p.add_(torch.randn(()) * 1e-3)


class DrawsFromNumpy(Base):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        super().step()
        for p in self.each():
            p.add_(float(np.random.normal()) * 1e-3)


class DrawsFromRandom(Base):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        super().step()
        for p in self.each():
            p.add_(random.gauss(0, 1) * 1e-3)


class DrawsTheSame(Base):
    def __init__(self, params: Any, lr: float = 0.05, generator: Any = None) -> None:
        super().__init__(params, lr)
        self.generator = generator or torch.Generator()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        super().step()
        self.generator.manual_seed(0)
        for p in self.each():
            p.add_(torch.randn(p.shape, generator=self.generator), alpha=1e-3)


class MixesLate(Base):
    """Divides by a common norm, after a warm-up that the look at the start does not last."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for p in self.each():
            count = self.state[p].setdefault("count", 0)
            self.state[p]["count"] = count + 1
            p.sub_(p.grad, alpha=0.05 / (1 + float(p.grad.norm())) if count > 8 else 0.05)


class ForgetsWhatItKnows(Base):
    """Momentum on the object, where no checkpoint sees it."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, lr)
        self.velocity = [torch.zeros_like(p) for p in self.each()]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for p, v in zip(self.each(), self.velocity, strict=True):
            p.sub_(v.mul_(0.5).add_(p.grad), alpha=0.05)


class Climbs(Base):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for p in self.each():
            p.add_(p.grad, alpha=0.001)


class OwnStepSize(Base):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for p in self.each():
            p.sub_(p.grad, alpha=0.05)


# Add-ons


class Mixes(AddOn):
    """Pulls every learner towards their mean."""

    def after_step(self, features: Any) -> None:
        for tensor in self.members.tensors:
            tensor.lerp_(tensor.mean(dim=0, keepdim=True), 0.1)


class Counts(AddOn):
    """Acts every fourth step, and forgets its count."""

    steps = 0

    def after_step(self, features: Any) -> None:
        self.steps += 1
        if self.steps % 4 == 0:
            for tensor in self.members.tensors:
                tensor.mul_(0.9)


class NeverNeutral(AddOn):
    def __init__(self, members: Any, strength: float = 0.1) -> None:
        super().__init__(members)

    def after_step(self, features: Any) -> None:
        for tensor in self.members.tensors:
            tensor.mul_(0.999)


# Resets of units


class InTurn(UnitReset):
    """One unit of each layer every fifth step, one after another."""

    def due(self, layer: Any, features: Any) -> Any:
        if self.steps % 5 == 0:
            unit = torch.tensor([self.steps // 5 % layer.size])
            yield from ((member, unit) for member in range(len(layer.w_in)))


class NamesNone(InTurn):
    def due(self, layer: Any, features: Any) -> Any:
        return ()


class NamesOneTooMany(InTurn):
    def due(self, layer: Any, features: Any) -> Any:
        return [(0, torch.tensor([layer.size]))]


class NamesAMask(InTurn):
    def due(self, layer: Any, features: Any) -> Any:
        return [(0, torch.ones(layer.size, dtype=torch.bool))]


class DrawsItsOwn(InTurn):
    def renew(self, layer: Any, member: int, units: Any) -> None:
        super().renew(layer, member, units)
        layer.w_in[member, units] *= 0.5


class KeepsOutgoing(InTurn):
    def renew(self, layer: Any, member: int, units: Any) -> None:
        layer.start_anew(member, units, "keep")


class TouchesTheNextUnit(InTurn):
    def renew(self, layer: Any, member: int, units: Any) -> None:
        super().renew(layer, member, units)
        layer.w_in[member, (units + 1) % layer.size] = 0.0


class KeepsMomentum(InTurn):
    def renew(self, layer: Any, member: int, units: Any) -> None:
        layer.start_anew(member, units, reset_optimizer=False)


class TheLeastOfAll(InTurn):
    """The unit that gives least to all learners together."""

    def due(self, layer: Any, features: Any) -> Any:
        unit = layer.features(features).abs().mean(dim=(0, 1, 2)).argmin(dim=0, keepdim=True)
        yield from ((member, unit) for member, _ in super().due(layer, features))


class CountsAnew(InTurn):
    def state_dict(self) -> Any:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


# Penalties


class Squares(Penalty):
    def __init__(self, network: Any, strength: float = 0.1) -> None:
        super().__init__(network)
        self.strength = strength

    def term(self, sight: Any, memory: Any) -> Any:
        return self.strength * sum(value.square().sum() for value in sight.parameters.values())


class ANumberEach(Squares):
    def term(self, sight: Any, memory: Any) -> Any:
        return sight.outputs.square().sum(dim=1)


class Endless(Squares):
    def term(self, sight: Any, memory: Any) -> Any:
        return super().term(sight, memory) / 0.0


class RemembersMore(Squares):
    def term(self, sight: Any, memory: Any) -> Any:
        memory["outputs"] = sight.outputs
        return super().term(sight, memory)


class GrowsWithCalls(Squares):
    def term(self, sight: Any, memory: Any) -> Any:
        self.strength *= 1.1
        return super().term(sight, memory)


class Rounded(Squares):
    def term(self, sight: Any, memory: Any) -> Any:
        return super().term(sight, memory).mul(1000).round()


class HalfHeld(Squares):
    def term(self, sight: Any, memory: Any) -> Any:
        return sum((value * value.detach()).sum() for value in sight.parameters.values())


class Branches(Squares):
    def term(self, sight: Any, memory: Any) -> Any:
        term = super().term(sight, memory)
        return term if term > 1 else 2 * term


class BeginsByChance(Squares):
    def begin(self, parameters: Any) -> Any:
        return {name: torch.randn(value.shape) for name, value in parameters.items()}

    def term(self, sight: Any, memory: Any) -> Any:
        return sum((value - memory[k]).square().sum() for k, value in sight.parameters.items())


class BeginsWithOne(Squares):
    """What it remembers is on the object, and that of the last learner that began."""

    def begin(self, parameters: Any) -> Any:
        self.start = {name: value.clone() for name, value in parameters.items()}
        return {}

    def term(self, sight: Any, memory: Any) -> Any:
        return sum((value - self.start[k]).square().sum() for k, value in sight.parameters.items())


class SharedStrength(Squares):
    """Divided among all learners that there are."""

    learners = 0

    def begin(self, parameters: Any) -> Any:
        self.learners += 1
        return {}

    def term(self, sight: Any, memory: Any) -> Any:
        return super().term(sight, memory) / self.learners


class NeverNothing(Squares):
    def term(self, sight: Any, memory: Any) -> Any:
        return super().term(sight, memory) + 0.01 * sight.outputs.square().mean()


# Networks


class WrongPath(Shortcut):
    hidden_layers = (HiddenLayer("layer_1", "inner", "relu", "outer"),)


class WrongWay(Shortcut):
    hidden_layers = (HiddenLayer("layer_1", "inner", "tanh", "past", function="tanh"),)


class WrongCopies(Shortcut):
    hidden_layers = (HiddenLayer("layer_1", "inner", "tanh", "outer", copies=2),)


class WiderFresh(Shortcut):
    def fresh(self, name: str, generator: torch.Generator) -> torch.Tensor:
        drawn = super().fresh(name, generator)
        return drawn if not hasattr(self, "made") else 2 * drawn

    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        self.made = True


class DrawsElsewhere(Shortcut):
    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(torch.Generator().manual_seed(int(torch.randint(9, ()))))


class AlwaysTheSame(Shortcut):
    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(torch.Generator().manual_seed(0))


class Untrained(Shortcut):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.tanh(self.inner(x))) + self.past(x).detach()


class OneNumber(Shortcut):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).sum(-1)


class NoNetwork(torch.nn.Linear):
    Options = ShortcutOptions

    def __init__(self, inputs: int, outputs: int, *_: Any) -> None:
        super().__init__(inputs, outputs)


# Streams


class OneGenerator(TurningLine):
    """Draws in the order of calls: cut otherwise, the sequence is another."""

    def _points(self, first: int, count: int) -> Any:
        rng = np.random.default_rng([self.seed, first])
        return rng.uniform(-1, 1, (count, 2)).astype(np.float32)


class GlobalDraws(TurningLine):
    def _points(self, first: int, count: int) -> Any:
        return np.random.uniform(-1, 1, (count, 2)).astype(np.float32)


class OneSeed(TurningLine):
    def __init__(self, seed: int, task_length: int = 20) -> None:
        super().__init__(0, task_length)


class HighLabels(TurningLine):
    def _write(self, x: Any, y: Any) -> None:
        super()._write(x, y)
        y += 1


class Remembers(TurningLine):
    """Its labels depend on how many examples there were since it was made."""

    count = 0

    def _write(self, x: Any, y: Any) -> None:
        for i in range(len(x)):
            x[i : i + 1] = self._points(self.position + i, 1)
            y[i] = (x[i, 0] > 0) ^ (self.count % 3 == 0)
            self.count += 1


class EarlyTask(TurningLine):
    def task_at(self, position: int) -> int:
        return super().task_at(position) + 1


class MovingProbe(TurningLine):
    def _draw_probe(self, n: int, rng: Any) -> Any:
        return super()._draw_probe(n, np.random.default_rng(self.position))


class SharedRows(TurningLine):
    """Keeps what it handed out, and gives it again."""

    def _draw_probe(self, n: int, rng: Any) -> Any:
        if (self.task, n) not in self.probes:
            self.probes[self.task, n] = super()._draw_probe(n, rng)
        return self.probes[self.task, n]

    def __init__(self, seed: int, task_length: int = 20) -> None:
        super().__init__(seed, task_length)
        self.probes: dict[Any, Any] = {}

    def _write(self, x: Any, y: Any) -> None:
        super()._write(x, y)
        for probe in self.probes.values():
            if probe.max() > 1:  # somebody wrote into it
                x[:] = probe[0]


class NoStream:
    def __init__(self, seed: int) -> None: ...


# Environments


class Unseeded(Line):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = float(np.random.default_rng().uniform(-1, 1))
        return self._seen(), {}


class MovesNumpy(Line):
    def step(self, action: Any) -> Any:
        np.random.uniform()
        return super().step(action)


class OutsideItsSpace(Line):
    def _seen(self) -> Any:
        return np.array([self.place + 1], np.float32)


class HalfAState(Line):
    def state_dict(self) -> Any:
        return {"place": 0.0, "bits": self.np_random.bit_generator.state}


class Infinite(Line):
    def step(self, action: Any) -> Any:
        seen, _, *rest = super().step(action)
        return seen, float("inf"), *rest


class Common(Line):
    """All that there are move together."""

    places: list[Any] = []

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        seen = super().reset(seed=seed)
        if self not in self.places:
            self.places.append(self)
        return seen

    def step(self, action: Any) -> Any:
        others = sum(1 for one in self.places if one is not self)
        seen, reward, *rest = super().step(action)
        return seen, reward + 0.01 * others, *rest


@dataclass(frozen=True)
class CommonLine(PermutedLine):
    def make_base(self, render_mode: Any) -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(Common(), 20)


# Agents


class Own(Supervised):
    Options = SupervisedOptions


class Idle(Own):
    def learn(self, x: Any, y: Any) -> Any:
        before = self.population.rows.clone()
        results = super().learn(x, y)
        self.population.rows.copy_(before)
        return results


class SharedLesson(Own):
    """Every member learns from all members' examples."""

    def learn(self, x: Any, y: Any) -> Any:
        return super().learn(x + x.mean(dim=0, keepdim=True), y)


class Forgetful(Own):
    def state_dict(self) -> Any:
        return {**super().state_dict(), "seen": 0}

    def learn(self, x: Any, y: Any) -> Any:
        self.seen = getattr(self, "seen", 0) + 1
        return super().learn(x * (1 + self.seen), y)


class Careless(Own):
    def learn(self, x: Any, y: Any) -> Any:
        return super().learn(x + float(torch.rand(())), y)


# Metrics


def changes_its_input(features: torch.Tensor) -> torch.Tensor:
    found = features.double().mean((-2, -1))
    features[:] = 0
    return found


def over_members(features: torch.Tensor) -> torch.Tensor:
    values = features.double().mean((-2, -1))
    return values - values.mean()


def by_place(features: torch.Tensor) -> torch.Tensor:
    return features.double().mean((-2, -1)) * torch.arange(1, len(features) + 1)


def one_number(features: torch.Tensor) -> torch.Tensor:
    return features.mean()


def whole_numbers(features: torch.Tensor) -> torch.Tensor:
    return (features > 0).sum((-2, -1))


def draws(features: torch.Tensor) -> torch.Tensor:
    return features.double().mean((-2, -1)) + torch.rand(len(features))


def divides_by_zero(features: torch.Tensor) -> torch.Tensor:
    mean = features.double().mean((-2, -1))
    return mean / mean


def hides_nan(features: torch.Tensor) -> torch.Tensor:
    return features.double().nan_to_num().mean((-2, -1))


def of_outputs(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.mean((-2, -1))


# Methods against forgetting


class ForReinforce(Method):
    """For an agent that takes none."""

    agents = ("Reinforce",)
