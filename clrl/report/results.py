"""Reads the folder of a suite: its runs, those that are missing, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clrl import machine
from clrl.errors import UsageError
from clrl.report.reader import read_runs
from clrl.report.runs import POINTS, Grid, Run
from clrl.storage import record

SUITE = "suite.yaml"
WORTH_A_PROCESS = 200_000_000
"""Bytes of metrics that take longer to read than a process takes to start."""


Key = tuple[str, str, int]
"""A run's benchmark, learner and seed."""


@dataclass(frozen=True)
class Located:
    """The runs of a suite's folder, not yet read.

    Attributes:
        suite: what ``suite.yaml`` holds; empty where it cannot be read.
        folders: all runs that are there or should be, by benchmark, learner and seed, each with
            its folder; None for one that left nothing.
        problems: what is wrong with the folder itself.
    """

    suite: dict[str, Any]
    folders: dict[Key, Path | None]
    problems: list[str]


@dataclass(frozen=True)
class Results:
    """A suite's folder.

    Attributes:
        folder: where it is.
        suite: what ``suite.yaml`` holds; empty where it cannot be read.
        benchmarks: label to grid, in the suite's order.
        runs: all runs that are there or should be, by benchmark, learner and seed.
        problems: what is wrong with the folder itself.
        places: benchmark, learner and seed of each run that is there to its folder.
        beside: further folders that were read as one with the first.
    """

    folder: Path
    suite: dict[str, Any]
    benchmarks: dict[str, Grid]
    runs: list[Run]
    problems: list[str]
    places: dict[Key, Path] = field(default_factory=dict)
    beside: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """What a reader calls it: the folders' names."""
        return " and ".join(folder.resolve().name for folder in (self.folder, *self.beside))


def read(*folders: Path) -> Results:
    """Read a suite's folder, or several as one.

    Args:
        folders: what ``clrl suite`` or ``clrl run`` was given as ``--out``, or folders of such;
            suites may still be at work on them. Of several, a learner that is in more than one is
            called by its folder's name as well, as ``FOLDER:LEARNER``; a benchmark that has other
            settings in another folder, ``FOLDER:BENCHMARK``.

    Raises:
        UsageError: there is no such folder, or it holds no runs.
    """
    located = side_by_side([(one, locate(one)) for folder in folders for one in _suites(folder)])
    keys, found = list(located.folders), {k: p for k, p in located.folders.items() if p}
    grids = {}
    for benchmark in dict.fromkeys(key[0] for key in keys):
        own = [path for key, path in found.items() if key[0] == benchmark]
        grids[benchmark] = _grid(located.suite, benchmark, own)
    work = [(found.get(key), key, grids[key[0]]) for key in keys]
    size = sum((path / record.METRICS).stat().st_size for path in found.values() if _has(path))
    processes = min(machine.cores(), size // WORTH_A_PROCESS)
    runs = read_runs(work, processes)
    return Results(folders[0], located.suite, grids, runs, located.problems, found, folders[1:])


def _suites(folder: Path) -> list[Path]:
    """The suites' folders in a folder; itself where it is one, or holds none."""
    if record.run_folders(folder) or not folder.is_dir():
        return [folder]
    return [one for one in sorted(folder.iterdir()) if record.run_folders(one)] or [folder]


def side_by_side(parts: Sequence[tuple[Path, Located]]) -> Located:
    """Several suites' folders as one."""
    if len(parts) == 1:
        return parts[0][1]
    names = distinct([folder for folder, _ in parts])
    settings: dict[str, list[Any]] = {}
    holders: dict[str, set[str]] = {}
    for name, (_, located) in zip(names, parts, strict=True):
        for benchmark, learner, _ in located.folders:
            holders.setdefault(learner, set()).add(name)
            own = _part(located.suite, "benchmarks").get(benchmark)
            known = settings.setdefault(benchmark, [])
            known += [] if own in known else [own]
    suite: dict[str, Any] = {"benchmarks": {}, "learners": {}}
    folders: dict[Key, Path | None] = {}
    problems = []
    for name, (_, located) in zip(names, parts, strict=True):
        benchmarks = {
            label: f"{name}:{label}" if len(settings[label]) > 1 else label
            for label in {key[0] for key in located.folders}
        }
        learners = {
            label: f"{name}:{label}" if len(holders[label]) > 1 else label
            for label in {key[1] for key in located.folders}
        }
        for kind, labels in (("benchmarks", benchmarks), ("learners", learners)):
            for label, entry in _part(located.suite, kind).items():
                if label in labels:
                    suite[kind][labels[label]] = _renamed(entry, benchmarks)
        for (benchmark, learner, seed), path in located.folders.items():
            folders[benchmarks[benchmark], learners[learner], seed] = path
        problems += [f"{name}: {problem}" for problem in located.problems]
    return Located(suite, folders, problems)


def _renamed(entry: Any, benchmarks: Mapping[str, str]) -> Any:
    """A learner's entry, with the benchmarks that it is for as they are called now."""
    if isinstance(entry, dict) and isinstance(entry.get("benchmarks"), list):
        return {**entry, "benchmarks": [benchmarks.get(one, one) for one in entry["benchmarks"]]}
    return entry


def distinct(folders: Sequence[Path]) -> list[str]:
    """Names of folders, with as many of the folders above them as tell them apart.

    Raises:
        UsageError: a folder is there twice.
    """
    for depth in range(1, 20):
        names = ["/".join(folder.resolve().parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"{folders[0]}: expected folders that differ, got one twice")


def locate(folder: Path) -> Located:
    """Find the runs of a suite's folder, those that are missing included.

    Raises:
        UsageError: there is no such folder, or it holds no runs.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder with runs; there is no such folder")
    suite, problems = _suite(folder)
    found = {_key(path): path for path in sorted(folder.glob("*/*/seed-*")) if _is_run(path)}
    if not found:
        raise UsageError(f"{folder}: expected a folder with runs; it holds none")
    keys = dict.fromkeys([*_expected(suite), *found])
    return Located(suite, {key: found.get(key) for key in keys}, problems)


def _suite(folder: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        suite = yaml.safe_load((folder / SUITE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        suite = None
    if not isinstance(suite, dict):
        return {}, [f"{SUITE} is missing or damaged, so missing runs cannot be told"]
    return suite, []


def _expected(suite: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """The runs that a suite asks for, in its order."""
    seeds = suite.get("seeds")
    seeds = [seed for seed in seeds if isinstance(seed, int)] if isinstance(seeds, list) else []
    for benchmark in _part(suite, "benchmarks"):
        for learner in _learners(suite, benchmark):
            for seed in seeds:
                yield str(benchmark), learner, seed


def _learners(suite: Mapping[str, Any], benchmark: str) -> dict[str, dict[str, Any]]:
    """The learners that a benchmark is for, with what they say."""
    found = {}
    for learner, entry in _part(suite, "learners").items():
        said = entry if isinstance(entry, dict) else {}
        only = said.get("benchmarks")
        if not isinstance(only, list) or benchmark in only:
            found[str(learner)] = said
    return found


def _part(suite: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = suite.get(name)
    return part if isinstance(part, dict) else {}


def _grid(suite: Mapping[str, Any], benchmark: str, folders: list[Path]) -> Grid:
    """The grid of a benchmark: from the suite, or from what its runs say."""
    planned = ({**suite, **own} for own in _learners(suite, benchmark).values())
    for source in (planned, map(record.read_config, folders)):
        sizes = [
            (steps, every)
            for settings in source
            if isinstance(steps := settings.get("steps"), int)
            and isinstance(every := settings.get("log_every"), int)
        ]
        if sizes:
            return Grid.of(*max(sizes))  # runs may have other lengths than others
    reached = [record.readable_status(folder).get("steps") for folder in folders]
    steps = max([value for value in reached if isinstance(value, int)], default=1)
    return Grid.of(max(1, steps), max(1, steps // POINTS))


def _is_run(path: Path) -> bool:
    return path.is_dir() and path.name[5:].isdecimal()


def _has(path: Path) -> bool:
    return (path / record.METRICS).is_file()


def _key(path: Path) -> tuple[str, str, int]:
    return path.parent.parent.name, path.parent.name, int(path.name[5:])
