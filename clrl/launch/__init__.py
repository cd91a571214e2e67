"""How populations are carried out: by workers here, on a Ray cluster, or in a Slurm queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clrl.errors import UsageError
from clrl.launch.crew import Crew


def crew_of(launcher: str, workers: int | None, address: str | None, out: Path) -> Crew[Any]:
    """The workers that a command line asks for.

    Args:
        launcher: ``local``, ``ray`` or ``slurm``.
        workers: how many at a time; None for one a core.
        address: of a Ray cluster.
        out: the suite's folder.

    Raises:
        UsageError: they cannot be had.
    """
    if address is not None and launcher != "ray":
        raise UsageError(f"--address: is Ray's; expected --launcher ray, got {launcher}")
    if launcher == "ray":
        from clrl.launch.ray import RayCrew

        return RayCrew(workers, address, out)
    from clrl.launch.local import LocalCrew, default_workers

    return LocalCrew(workers or default_workers())
