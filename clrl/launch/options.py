"""What people say about how runs are carried out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge

from clrl.options import PositiveFloat, PositiveInt
from clrl.storage.checkpoint import Keeping

_WHOLE = {"metavar": "WHOLE"}
_NAME = {"metavar": "NAME"}


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks Slurm for, besides one CPU.

    Attributes:
        partition: the partition; the cluster's default unless given.
        account: the account to charge; the cluster's default unless given.
        time: hours that a job may take; it is then preempted, and queued again.
        memory: gigabytes of a job.
    """

    partition: str | None = field(default=None, metadata=_NAME)
    account: str | None = field(default=None, metadata=_NAME)
    time: PositiveFloat = 24.0
    memory: Annotated[float, Ge(0.1)] = 4.0


@dataclass(frozen=True)
class LaunchOptions:
    """How runs are carried out, which changes nothing about their results.

    Attributes:
        launcher: where: on this machine, on a Ray cluster, or as jobs of Slurm.
        address: of a Ray cluster, as HOST:PORT; Ray is started on this machine unless given.
        workers: populations in training at a time; one a core unless given, and one for a GPU.
        device: what learners compute on, and the physics of classic control.
        members: seeds that are trained together at most; follows from workers unless given.
        checkpoint_minutes: between two checkpoints; there is always one at the end.
        checkpoint_steps: steps of each learner between two checkpoints; any number unless given.
        log: where measurements go as well: csv, wandb, mlflow, or package.module:Name.
        force: go on from a checkpoint although settings, versions or threads have changed.
        dry_run: show what would be done, and about how long it takes; write nothing.
        slurm: what a job of Slurm asks for.
    """

    launcher: Literal["local", "ray", "slurm"] = "local"
    address: str | None = field(default=None, metadata={"metavar": "HOST:PORT"})
    workers: PositiveInt | None = field(default=None, metadata=_WHOLE)
    device: Literal["cpu", "cuda"] = "cpu"
    members: PositiveInt | None = field(default=None, metadata=_WHOLE)
    checkpoint_minutes: PositiveFloat = Keeping.minutes
    checkpoint_steps: PositiveInt | None = field(default=Keeping.steps, metadata=_WHOLE)
    log: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME ..."})
    force: bool = field(default=False, metadata={"switch": True})
    dry_run: bool = field(default=False, metadata={"switch": True})
    slurm: SlurmOptions = SlurmOptions()

    @property
    def keeping(self) -> Keeping:
        """When checkpoints are written."""
        return Keeping(self.checkpoint_minutes, self.checkpoint_steps)
