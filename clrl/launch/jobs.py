"""What there is to do: populations, cut into jobs that keep every worker busy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clrl.settings.config import RunConfig


@dataclass(frozen=True)
class Job:
    """Runs that differ in nothing but their seed, trained together by one worker.

    Attributes:
        label: what the user calls it, ``benchmark/learner``.
        config: the configuration of every run.
        folders: each seed's folder.
        resumes: whether it goes on from its checkpoint, so that it cannot be cut.
        forced: what has changed since that checkpoint, and is to be ignored.
        device: what learners compute on.
    """

    label: str
    config: RunConfig
    folders: dict[int, Path]
    resumes: bool = False
    forced: tuple[str, ...] = ()
    device: str = "cpu"

    @property
    def size(self) -> int:
        """Examples that all members together will see."""
        return self.config.steps * len(self.folders)


def share_out(
    populations: Sequence[Job], workers: int | None, members: int | None = None
) -> list[Job]:
    """Cut populations so that no worker is left without work before the end.

    Members are independent, so that cutting never changes a result; but a population
    that is trained whole costs less than its parts. So as many populations as go evenly
    into the workers stay whole and come first, and each of the rest is cut into as many
    parts as there are workers. Populations that go on from a checkpoint come before all
    others, and whole.

    Args:
        populations: what there is to do.
        workers: how many jobs run side by side; None for any number, with nothing to cut.
        members: how many seeds a job has at most; None for any number.

    Returns:
        The jobs in the order in which to start them.
    """
    begun = [population for population in populations if population.resumes]
    new = [population for population in populations if not population.resumes]
    whole = len(new) if workers is None else len(new) // workers * workers
    jobs = list(begun)
    for index, population in enumerate(new):
        seeds = len(population.folders)
        parts = 1 if workers is None or index < whole else min(workers, seeds)
        if members is not None:
            parts = max(parts, -(-seeds // members))
        jobs += _cut(population, parts)
    return jobs


def _cut(population: Job, parts: int) -> list[Job]:
    """A population as so many parts, of nearly equal size."""
    if parts == 1:
        return [population]
    seeds = list(population.folders)
    bounds = [part * len(seeds) // parts for part in range(parts + 1)]
    return [
        replace(population, folders={k: population.folders[k] for k in seeds[first:last]})
        for first, last in itertools.pairwise(bounds)
    ]
