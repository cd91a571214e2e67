"""How populations are carried out: by workers here, on a Ray cluster, or in a Slurm queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clrl import machine
from clrl.errors import UsageError
from clrl.launch.crew import Crew
from clrl.launch.options import LaunchOptions


def crew_of(options: LaunchOptions, out: Path) -> Crew[Any]:
    """The workers that a command line asks for.

    Args:
        options: what it says.
        out: the suite's folder.

    Raises:
        UsageError: they cannot be had.
    """
    if options.address is not None and options.launcher != "ray":
        raise UsageError(
            f"--address: expected with --launcher ray, got --launcher {options.launcher}"
        )
    if options.device == "cuda" and options.launcher != "local":
        raise UsageError(
            f"--device cuda: expected with --launcher local, got --launcher {options.launcher}"
        )
    if options.launcher == "ray":
        from clrl.launch.ray import RayCrew

        return RayCrew(options.workers, options.address, out)
    if options.launcher == "slurm":
        from clrl.launch.slurm import SlurmCrew

        return SlurmCrew(options.workers, out, options.slurm)
    from clrl.launch.local import LocalCrew

    # A GPU takes populations whole.
    return LocalCrew(options.workers or (1 if options.device == "cuda" else machine.cores()))
