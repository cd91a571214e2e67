"""What there is to do: populations, cut into jobs that keep every worker busy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clrl.config import RunConfig


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


def share_out(populations: Sequence[Job], workers: int) -> list[Job]:
    """Cut populations so that no worker is left without work before the end.

    Members are independent, so that cutting never changes a result; but a population
    that is trained whole costs less than its parts. So as many populations as go evenly
    into the workers stay whole and come first, and each of the rest is cut into as many
    parts as there are workers. Populations that go on from a checkpoint come before all
    others, and whole.

    Args:
        populations: what there is to do.
        workers: how many jobs run side by side.

    Returns:
        The jobs in the order in which to start them.
    """
    begun = [population for population in populations if population.resumes]
    new = [population for population in populations if not population.resumes]
    whole = len(new) // workers * workers
    jobs = begun + new[:whole]
    for population in new[whole:]:
        seeds = list(population.folders)
        parts = min(workers, len(seeds))
        for part in range(parts):
            mine = seeds[part * len(seeds) // parts : (part + 1) * len(seeds) // parts]
            jobs.append(replace(population, folders={k: population.folders[k] for k in mine}))
    return jobs
