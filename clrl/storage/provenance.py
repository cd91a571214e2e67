"""What a run was made with: versions, threads, machine."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from clrl import machine

PACKAGES = ("clrl", "torch", "numpy", "gymnasium", "mujoco", "stable-baselines3")
"""Whose versions decide a run's numbers."""

THREADS = 1
"""Threads a training process computes on; another number rounds sums in another order."""

DECIDING = (*PACKAGES, "commit", "threads", "device")
"""What has to be the same for a run to go on as if it had never been interrupted."""

CHOOSING = ("MKL_CBWR", "ATEN_CPU_CAPABILITY")
"""Variables by which MKL and torch choose among kernels; other kernels round otherwise."""

Provenance = Mapping[str, str | int | None]


@functools.cache
def provenance(device: str = "cpu") -> Provenance:
    """What a run made now is made with.

    Args:
        device: what its learners compute on.

    Returns:
        The versions of `PACKAGES` (None for one that is not installed); ``commit``, where this
        code is a git checkout (with ``+`` behind it where files differ from it); ``threads``;
        ``device``; ``python``; ``machine``, ``processor``, ``cores`` and what chooses kernels,
        `CHOOSING` (None where it is not set), which are for people to read. Training adds
        ``members``: how those were computed, so that each is the same alone.
    """
    return {
        **{name: _version(name) for name in PACKAGES},
        "commit": _commit(Path(__file__).parents[2]),
        "threads": THREADS,
        "device": device,
        "python": platform.python_version(),
        "machine": platform.node(),
        "processor": machine.processor(),
        "cores": os.cpu_count(),
        **{name: os.environ.get(name) for name in CHOOSING},
    }


def changes(before: Provenance, now: Provenance) -> list[str]:
    """What decides a run's numbers and has changed, such as ``torch 2.13.0 -> 2.14.0``."""
    return [
        f"{name} {before.get(name) or 'none'} -> {now.get(name) or 'none'}"
        for name in DECIDING
        if before.get(name) != now.get(name)
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The checkout's commit; None where the code is not a checkout of its own."""
    if not (folder / ".git").exists():
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    clean = _git(folder, "status", "--porcelain", "--", "clrl", "envs", "agents") == ""
    return commit if clean else f"{commit}+"


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command], capture_output=True, encoding="utf-8", check=False
        )
    except FileNotFoundError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None
