"""What agents promise, each tried in the loop that trains it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clrl.agents.table import AGENTS
from clrl.settings.config import resolve
from clrl.settings.values import Place
from clrl.storage import checkpoint
from clrl.testing.elsewhere import elsewhere
from clrl.testing.promises import Broken, Check, Subject, difference, load, options_of
from clrl.training.dispatch import training

_CONTROL = {"name": "switching-cartpole", "task_length": 150}
_STREAM = {"name": "permuted-digits", "task_length": 200}


def check_agent(
    agent: Subject,
    *,
    benchmark: str | Mapping[str, Any] | None = None,
    run: Mapping[str, Any] = {},  # noqa: B006 - not written to
    steps: int | None = None,
    **options: Any,
) -> tuple[str, ...]:
    """Hold an agent against what its loop relies on, in a short training.

    It learns, and what it records is finite; a learner is the same to the bit alone, among others
    and divided otherwise; another seed gives another learner; nothing is drawn from global
    generators; after a checkpoint it goes on to the same bits in a new process; and where it can
    answer, answers are of the action space and disturb nothing.

    Args:
        agent: the class, or a name.
        benchmark: what it learns on: CartPole with changing physics where its options have
            ``num_envs``, digits with permuted pixels otherwise, unless given.
        run: other settings of the runs, such as ``{"consolidation": ["ewc"]}``.
        steps: of each learner; four iterations unless given.
        options: fields of its options, which its attribute ``Options`` describes.

    Returns:
        The promises that held.

    Raises:
        Broken: the first that does not.
        UsageError: there is nothing of that name, or an option is wrong.
    """
    make, name = load(agent, AGENTS)
    fields = dataclasses.fields(options_of(agent, AGENTS))
    acts = any(field.name == "num_envs" for field in fields)
    if not isinstance(agent, str):
        name = _name_of(make)
    raw = {
        "benchmark": benchmark or (_CONTROL if acts else _STREAM),
        "agent": {"name": name, **options},
        "network": {"name": "mlp", "widths": [8, 6]},
        "steps": steps or 600,
        "log_every": 200,
        **run,
    }
    check = Check(name)
    with check.promise("learns"):
        trial = _Trial(raw, [1])
        start = trial.rows()
        first = trial.go()
        if not any(first[1]):
            raise Broken("nothing is recorded")
        for step, values in first[1]:
            for key, value in values.items():
                if not np.isfinite(value) and key != "task/return":  # of a task without an end
                    raise Broken(f"{key} is {value} at step {step}")
        if not difference(start, trial.rows()):
            raise Broken("its parameters are what they were")
    end = trial.rows()
    check.own_randomness(lambda: _Trial(raw, [1]).go())
    with check.promise("another seed gives another learner"):
        if not difference(first[1], _Trial(raw, [2]).go()[2]):
            raise Broken("seeds 1 and 2 record the same")
    with check.promise("members independent"):
        for size in (None, 1, 2):
            own = raw if size is None else {**raw, "chunk_size": size}
            together = _Trial(own, [0, 1, 2])
            found = together.go()
            if where := difference(first[1], found[1]):
                line, *rest = where.split(", ")
                key = rest[-1] if rest else "its length"
                step = first[1][int(line)][0] if line.isdigit() else "?"
                raise Broken(f"seed 1 alone and among three differ at step {step} in {key}")
            if difference(end[0], together.rows()[1]):
                raise Broken("the parameters of seed 1 alone and among three differ at the end")
    _check_state(check, raw)
    if hasattr(trial.loop.agent, "answer") and acts:
        _check_answers(check, trial)
    return tuple(check.held)


def _name_of(make: Any) -> str:
    for entry in AGENTS:
        if entry.source == "built in" and entry.target.endswith(f":{make.__name__}"):
            if entry.load() is make:
                return entry.name
    return f"{make.__module__}:{make.__qualname__}"


class _Trial:
    """A training in memory.

    Args:
        raw: the settings of a run.
        seeds: one a member.
    """

    def __init__(self, raw: Mapping[str, Any], seeds: Sequence[int]) -> None:
        self.loop: Any = training(resolve(raw, Place()), seeds)
        self.lines: dict[int, list[Any]] = {seed: [] for seed in seeds}

    def rows(self) -> list[Any]:
        """Copies of the members' parameters."""
        return [row.clone() for row in self.loop.agent.population.rows]

    def go(self, keep: int | None = None) -> Any:
        """Train to the end: lines by seed, times left out.

        Args:
            keep: a safe point whose state is wanted as well, by its number.

        Returns:
            The lines; with `keep` the state there, and the lines after it.
        """
        points: list[bytes] = []
        since: dict[int, int] = {}

        def look(done: int, total: int) -> None:
            if keep is not None and len(points) < keep:
                packed = len(points) + 1 == keep
                points.append(checkpoint.pack({"loop": self.loop.state_dict()}) if packed else b"")
                since.update({seed: len(own) for seed, own in self.lines.items()})

        self.loop.run({seed: _Sink(own) for seed, own in self.lines.items()}, look)
        if keep is None:
            return self.lines
        return points[-1], {seed: own[since[seed] :] for seed, own in self.lines.items()}


class _Sink:
    def __init__(self, lines: list[Any]) -> None:
        self._lines = lines

    def write(self, step: int, values: Mapping[str, float]) -> None:
        kept = {key: value for key, value in values.items() if not key.startswith("time/")}
        self._lines.append([step, kept])


def _check_state(check: Check, raw: Mapping[str, Any]) -> None:
    with check.promise("its state comes back in a new process"):
        trial = _Trial(raw, [1, 2])
        saved, expected = trial.go(keep=2)
        found, rows = elsewhere(_goes_on, raw, saved)
        if where := difference(expected, found):
            raise Broken(f"what is recorded after a checkpoint differs at seed {where}")
        if difference(trial.rows(), rows):
            raise Broken("its parameters at the end differ")


def _goes_on(raw: Mapping[str, Any], saved: bytes) -> Any:
    trial = _Trial(raw, [1, 2])
    trial.loop.load_state_dict(checkpoint.unpack(saved, Path("state"))["loop"])
    return trial.go(), trial.rows()


def _check_answers(check: Check, trial: _Trial) -> None:
    with check.promise("answers, and is not disturbed by it"):
        agent, envs = trial.loop.agent, trial.loop.envs
        observations = np.stack([envs.single_observation_space.sample() for _ in range(5)])
        before = checkpoint.pack(agent.state_dict())
        actions = agent.answer(observations)
        if difference(np.asarray(actions), np.asarray(agent.answer(observations))):
            raise Broken("the same observations have other answers")
        for action in actions:
            if action not in envs.single_action_space:
                raise Broken(f"{action} is no action of {envs.single_action_space}")
        if checkpoint.pack(agent.state_dict()) != before:
            raise Broken("its state is another after an answer")
