"""Small learners on which update rules, networks and penalties are tried, and what they promise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clrl.agents.calling import Call, draw
from clrl.agents.networks import MLP, Network, extend
from clrl.agents.objective import Objective
from clrl.agents.optim.base import compose
from clrl.agents.optim.rule import UpdateRule, make_base
from clrl.agents.options import MLPOptions
from clrl.agents.penalties.base import Penalty
from clrl.agents.population import Population
from clrl.agents.supervised import regression_loss
from clrl.storage import checkpoint
from clrl.testing.elsewhere import elsewhere
from clrl.testing.promises import Broken, Check, difference

SEED = 1
"""The learner that is looked at alone and among others."""


def seeded(seed: int) -> torch.Generator:
    """A generator of a seed."""
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Problem:
    """A linear regression that one update rule and one network are to learn.

    Attributes:
        rule: the update rule.
        steps: updates that are compared.
        network: makes networks, from (inputs, outputs, options, generator, gain).
        options: the network's.
        inputs: numbers in an input.
        outputs: numbers in a target.
        penalties: make terms that are added to the loss, given a network.
    """

    rule: UpdateRule
    steps: int
    network: Callable[..., Network] = MLP
    options: Any = field(
        default_factory=lambda: MLPOptions(widths=(7, 5), activation="tanh", init="kaiming")
    )
    inputs: int = 4
    outputs: int = 2
    penalties: Sequence[Callable[[Network], Penalty]] = ()

    def make(self, seed: int) -> Network:
        """A network from a seed."""
        return self.network(self.inputs, self.outputs, self.options, seeded(seed), 1.0)

    def population(
        self, seeds: Sequence[int], chunk_size: int | None = None, salt: int = 1000
    ) -> Population:
        """Learners of the engine, one a seed, that draw from generators of (seed + salt)."""
        generators = [seeded(salt + seed) for seed in seeds]
        networks = [self.make(seed) for seed in seeds]
        return Population(
            networks,
            regression_loss,
            self.rule,
            generators,
            chunk_size,
            penalties=self.penalties,
        )

    def examples(self, seeds: Sequence[int], updates: int) -> tuple[Tensor, Tensor]:
        """Each seed's own problem: [seeds, updates, 16, inputs] and [..., outputs]."""
        xs, ys = [], []
        for seed in seeds:
            truth = torch.empty(self.inputs, self.outputs).normal_(generator=seeded(777 + seed)) / 2
            x = torch.empty(updates, 16, self.inputs).normal_(generator=seeded(5000 + 100 * seed))
            xs.append(x)
            ys.append(x @ truth)
        return torch.stack(xs), torch.stack(ys)


class Plain:
    """One ordinary module, with its rule as an ordinary optimizer; nothing is stacked or recorded.

    Args:
        problem: what is learned.
        seed: of the network.
        salt: of the generator, besides the seed.

    Attributes:
        kept: what else there is of the learner; see `clrl.agents.objective.Objective.begin`.
    """

    def __init__(self, problem: Problem, seed: int, salt: int = 1000) -> None:
        rule = problem.rule
        self.generator = seeded(salt + seed)
        self.network = problem.make(seed)
        extend(self.network, rule.extensions(self.network), salt + seed)
        penalties = [make(self.network) for make in problem.penalties]
        self._objective = Objective(self.network, regression_loss, penalties)
        extend(self.network, self._objective.extensions(), salt + seed)
        own = list(self.network.parameters())
        self.optimizer = make_base(rule, own, [self.generator], self.network)
        if rule.addons:
            makers = [functools.partial(addon, **options) for addon, options in rule.addons]
            self.optimizer = compose(self.network, self.optimizer, makers, self.generator)
        self.kept = self._objective.begin(self.parameters(), dict(self.network.named_buffers()))

    def learn(self, x: Tensor, y: Tensor) -> Tensor:
        """Losses [updates] before each update, of batches [updates, ...]; without penalties."""
        losses = []
        parameters = dict(self.network.named_parameters())
        for inputs, target in zip(x, y, strict=True):
            total, loss, kept = self.objective(parameters, self.kept, inputs, target)
            # What is kept may be a parameter, which the step is about to change.
            self.kept = {name: value.clone() for name, value in kept.items()}
            self.optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():  # what resets find, and change, are the network's own
                for name, own in self.network.named_buffers():
                    own.copy_(self.kept[name])
                    self.kept[name] = own
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def objective(
        self, parameters: Mapping[str, Tensor], kept: Mapping[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The whole objective, the loss without penalties, and what is kept after this batch."""
        with Call() as call:
            terms, loss, _, _, after = self._objective(parameters, kept, x, y)
        if call.draws:
            (noise,) = draw(call.draws, [self.generator])
            with Call(noise):
                terms, loss, _, _, after = self._objective(parameters, kept, x, y)
        return sum(terms, loss), loss, after

    def parameters(self) -> dict[str, Tensor]:
        """Copies of the parameters, by name."""
        return {name: value.detach().clone() for name, value in self.network.named_parameters()}

    def state_dict(self) -> dict[str, Any]:
        """What decides the future."""
        return {
            "parameters": self.parameters(),
            "kept": self.kept,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(state["parameters"][name])
        self.kept = dict(state["kept"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])


def check_trained(check: Check, problem: Problem, every: bool) -> None:
    """Numbers move in the second half of the updates too, and stay finite.

    Args:
        check: whose promises.
        problem: what is learned.
        every: whether every number of a parameter is to move, or any.
    """
    with check.promise("every parameter trained"):
        own, half = problem.population([SEED]), problem.steps // 2
        x, y = problem.examples([SEED], problem.steps)
        own.learn(x[:, :half], y[:, :half])
        still = {name: torch.ones_like(one, dtype=torch.bool) for name, one in _of(own)}
        for update in range(half, problem.steps):  # what goes to and fro moves, too
            before = {name: value.clone() for name, value in _of(own)}
            own.learn(x[:, update : update + 1], y[:, update : update + 1])
            for name, value in _of(own):
                still[name] &= value == before[name]
        for name, value in _of(own):
            if not bool(value.isfinite().all()):
                raise Broken(f"{name} is not finite after {problem.steps} updates")
            if bool(still[name].any() if every else still[name].all()):
                raise Broken(
                    f"{int(still[name].sum())} of {value.numel()} numbers of {name} do not move "
                    f"in updates {half + 1} to {problem.steps}"
                )


def _of(population: Population) -> list[tuple[str, Tensor]]:
    return list(population.parameters().items())


def check_members(check: Check, problem: Problem, thorough: bool) -> None:
    """A learner alone, among others, and divided otherwise: the same bits.

    Args:
        check: whose promises.
        problem: what is learned.
        thorough: try each of five learners in every division, and not one of three in two.
    """
    with check.promise("members independent"):
        seeds = range(5 if thorough else 3)
        looked_at = seeds if thorough else [SEED]
        x, y = problem.examples(seeds, problem.steps)
        alone = {}
        for seed in looked_at:
            one = problem.population([seed])
            alone[seed] = _trajectory(one, x[seed : seed + 1], y[seed : seed + 1])
        for size in (1, 2, 3, 5) if thorough else (2, 3):
            together = _trajectory(problem.population(seeds, size), x, y)
            for seed, expected in alone.items():
                found = {key: value[seed : seed + 1] for key, value in together.items()}
                who = f"member {seed} alone and in chunks of {size} differ"
                if difference(expected["losses"], found["losses"]):
                    apart = torch.nonzero(expected["losses"][0] != found["losses"][0])
                    raise Broken(f"{who} from update {int(apart[0]) if len(apart) else 0} on")
                if difference(expected["rows"], found["rows"]):
                    raise Broken(f"{who} after update {problem.steps}")


def _trajectory(population: Population, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    losses = population.learn(x, y)["loss"]
    return {"losses": losses, "rows": population.rows.clone()}


def check_state(check: Check, problem: Problem) -> None:
    """A state that is saved and loaded in a new process goes on to the same bits."""
    half = problem.steps // 2 + 1
    kinds: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("state of the population", _population_goes_on),
        ("state of the ordinary optimizer", _plain_goes_on),
    )
    for what, goes_on in kinds:
        with check.promise(f"{what} comes back in a new process"):
            content = goes_on(problem, half, None)
            expected, saved = content["end"], content["state"]
            found = elsewhere(goes_on, problem, half, saved)["end"]
            if where := difference(expected, found):
                raise Broken(f"going on from update {half} differs at {where}")


def _population_goes_on(problem: Problem, half: int, saved: bytes | None) -> dict[str, Any]:
    x, y = problem.examples([SEED], problem.steps)
    own = problem.population([SEED] if saved is None else [SEED + 50])
    if saved is None:
        own.learn(x[:, :half], y[:, :half])
        saved = checkpoint.pack(own.state_dict())
    else:
        own.load_state_dict(checkpoint.unpack(saved, Path("state")))
    losses = own.learn(x[:, half:], y[:, half:])["loss"]
    return {"state": saved, "end": {"losses": losses, "parameters": dict(own.parameters())}}


def _plain_goes_on(problem: Problem, half: int, saved: bytes | None) -> dict[str, Any]:
    (x,), (y,) = problem.examples([SEED], problem.steps)
    own = Plain(problem, SEED if saved is None else SEED + 50)
    if saved is None:
        own.learn(x[:half], y[:half])
        saved = checkpoint.pack(own.state_dict())
    else:
        own.load_state_dict(checkpoint.unpack(saved, Path("state")))
    losses = own.learn(x[half:], y[half:])
    return {"state": saved, "end": {"losses": losses, "parameters": own.parameters()}}


def check_randomness(check: Check, problem: Problem, draws: bool = True) -> None:
    """What is drawn comes from the members' generators, and from nowhere else.

    Args:
        check: whose promises.
        problem: what is learned.
        draws: whether draws, if there are any, are to be seen in what is learned.
    """
    short = replace(problem, steps=min(problem.steps, 12))
    x, y = short.examples([SEED], short.steps)

    def plain() -> list[Tensor]:
        own = Plain(short, SEED)
        return [own.learn(x[0], y[0]), *own.parameters().values()]

    def stacked() -> dict[str, Tensor]:
        return _trajectory(short.population([SEED]), x, y)

    check.own_randomness(lambda: [plain(), stacked()])
    if not draws:
        return
    with check.promise("another seed gives another result"):
        results: list[tuple[dict[str, Tensor], Population]] = []
        drawn = False
        for salt in (1000, 2000):
            own = Plain(short, SEED, salt)
            start = own.generator.get_state()
            own.learn(x[0], y[0])
            drawn = drawn or bool((own.generator.get_state() != start).any())
            results.append((own.parameters(), short.population([SEED], salt=salt)))
        if drawn:
            for _, population in results:
                population.learn(x, y)
            if not difference(results[0][0], results[1][0]):
                raise Broken("the ordinary optimizer draws, and what it draws changes nothing")
            if not difference(results[0][1].rows, results[1][1].rows):
                raise Broken("the population's members draw, and what they draw changes nothing")


def check_one_member(check: Check, problem: Problem) -> None:
    """A population of one is the ordinary module, up to rounding, where nothing is drawn."""
    with check.promise("a population of one is the ordinary module"):
        steps = min(problem.steps, 30)
        x, y = problem.examples([SEED], steps)
        own, members = Plain(problem, SEED), problem.population([SEED])
        start = own.generator.get_state()
        losses = own.learn(x[0], y[0])
        if bool((own.generator.get_state() != start).any()):
            return
        found = members.learn(x, y)["loss"][0]
        for index, (a, b) in enumerate(zip(losses, found, strict=True)):
            if not torch.allclose(a, b, rtol=1e-4, atol=1e-6):
                raise Broken(f"their losses differ from update {index} on")
        for name, value in own.parameters().items():
            if not torch.allclose(members.parameters()[name][0], value, rtol=1e-4, atol=1e-5):
                raise Broken(f"{name} differs after {steps} updates")


def check_neutral(check: Check, problem: Problem, same: Problem, room: float) -> None:
    """A problem under neutral options, and what it is then: learners that end alike.

    Args:
        check: whose promises.
        problem: what is learned, as it is said to be another.
        same: that other.
        room: relative and absolute; 0 for the same bits.
    """
    with check.promise("its neutral setting is the base"):
        steps = min(problem.steps, 30)
        x, y = problem.examples([SEED], steps)
        own, other = (one.population([SEED]) for one in (problem, same))
        found, expected = (one.learn(x, y)["loss"][0] for one in (own, other))
        for name, value in other.parameters().items():
            if not torch.allclose(own.parameters()[name], value, rtol=room, atol=room):
                apart = torch.nonzero((found - expected).abs() > room * expected.abs())
                since = f"since update {int(apart[0])}" if len(apart) else "at the end"
                raise Broken(f"{name} differs from the base's {since}")
