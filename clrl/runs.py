"""What ``clrl run`` and ``clrl suite`` do, for Python: same names, values, folders and messages.

Training is done by worker processes of their own, so that a notebook or a script without a main
guard can ask for it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clrl.errors import RunsFailed, UsageError
from clrl.launch.options import LaunchOptions
from clrl.report.recorded import Recorded, load
from clrl.settings.values import Place, build, show

if TYPE_CHECKING:
    from clrl.envs import Benchmark
    from clrl.suites import Suite

Chosen = str | Mapping[str, Any]
"""A name, or a mapping with ``name`` and options."""

Seeds = int | str | Iterable[int]
"""One seed, several, or text such as ``0-9`` or ``0,2,5-7``."""


def run(
    benchmark: Chosen | Benchmark | None = None,
    *,
    agent: Chosen | None = None,
    network: Chosen | None = None,
    optimizer: Chosen | None = None,
    addons: Sequence[Chosen] = (),
    penalties: Sequence[Chosen] = (),
    consolidation: Sequence[Chosen] = (),
    steps: float | None = None,
    log_every: float | None = None,
    chunk_size: int | None = None,
    engine: str | None = None,
    metrics: Sequence[str] = (),
    seeds: Seeds = 0,
    out: str | Path | None = None,
    quiet: bool = False,
    **how: Any,
) -> Recorded:
    """Train one learner on one benchmark, a run for each seed, as ``clrl run`` does.

    What is finished is not done again, and what was interrupted goes on.

    Args:
        benchmark: where experience comes from; see ``clrl list benchmarks``. A control task may
            also be given as what it is, such as `clrl.envs.Changing`.
        agent: what learns; see ``clrl list agents``.
        network: see ``clrl list networks``.
        optimizer: the update rule; an add-on's name stands for it over ``base``.
        addons: what is done around the optimizer.
        penalties: terms that are added to the loss.
        consolidation: methods against forgetting.
        steps: examples, or steps of a control task, that each learner sees.
        log_every: steps between two points of a curve.
        chunk_size: members stepped together; changes the speed, never the results.
        engine: ``auto``, ``replay`` or ``compiled``: how updates are computed; see docs/speed.md.
        metrics: functions of your own to measure besides, as ``package.module:function``.
        seeds: one run each.
        out: the folder for results; ``runs/BENCHMARK`` unless given.
        quiet: say nothing of the progress, which goes to standard error otherwise.
        how: how the runs are carried out: the fields of
            `clrl.launch.options.LaunchOptions`, such as ``workers`` or ``device``.

    Returns:
        What the runs recorded.

    Raises:
        UsageError: a mistake in what was asked for.
        RunsFailed: a run failed; the others went on to their ends.
        StorageError: something cannot be written.
        KeyboardInterrupt: after Ctrl-C; there are checkpoints, and the same call goes on.
    """
    from clrl import suites
    from clrl.benchmarks import as_choice
    from clrl.envs import Benchmark
    from clrl.tuned import resolve_run

    given = {
        "benchmark": benchmark,
        "agent": agent,
        "network": network,
        "optimizer": optimizer,
        "addons": addons,
        "penalties": penalties,
        "consolidation": consolidation,
        "steps": steps,
        "log_every": log_every,
        "chunk_size": chunk_size,
        "engine": engine,
        "metrics": metrics,
    }
    options = _launch_options(how)
    if isinstance(benchmark, Benchmark):
        given["benchmark"] = as_choice(benchmark)
    raw = {key: _plain(value) for key, value in given.items() if value is not None}
    table = suites.single(resolve_run(raw, Place()), _seeds(seeds))
    label = next(iter(table.benchmarks))
    folder = Path(out) if out is not None else Path("runs", label)
    _carry_out(table, folder, options, quiet)
    return load(folder).select(label, next(iter(table.learners)), table.seeds)


def suite(
    suite: str | Path,
    out: str | Path | None = None,
    *,
    learners: str | Sequence[str] = (),
    seeds: Seeds | None = None,
    steps: float | None = None,
    with_scratch: bool = False,
    quiet: bool = False,
    **how: Any,
) -> Recorded:
    """Carry out a suite, as ``clrl suite`` does.

    What is finished is not done again, and what was interrupted goes on.

    Args:
        suite: its name (see ``clrl list suites``) or a YAML file.
        out: the folder for results; ``runs/NAME`` unless given.
        learners: labels of the learners to train; all of the suite's unless given.
        seeds: in place of the suite's.
        steps: of each learner, in place of the suite's.
        with_scratch: add for each learner one that is made new with every task.
        quiet: see `run`.
        how: see `run`.

    Returns:
        What all runs in the folder recorded.

    Raises:
        UsageError, RunsFailed, StorageError, KeyboardInterrupt: as `run` does.
    """
    from clrl import suites

    options = _launch_options(how)
    overrides: dict[str, Any] = {}
    if seeds is not None:
        overrides["seeds"] = _seeds(seeds)
    if steps is not None:
        overrides["steps"] = _plain(steps)
    table = suites.load(str(suite), overrides)
    if learners:
        table = suites.chosen(table, [learners] if isinstance(learners, str) else learners)
    if with_scratch:
        table = suites.with_scratch(table)
    folder = Path(out) if out is not None else Path("runs", table.name)
    _carry_out(table, folder, options, quiet)
    return load(folder)


def _launch_options(how: Mapping[str, Any]) -> LaunchOptions:
    raw = {key: _plain(value) for key, value in how.items() if value is not None}
    options: LaunchOptions = build(LaunchOptions, raw, Place())
    if options.dry_run:
        raise UsageError("--dry-run: expected on the command line; from Python it plans nothing")
    return options


def _carry_out(table: Suite, out: Path, how: LaunchOptions, quiet: bool) -> None:
    from rich.console import Console

    from clrl import suites
    from clrl.launch import crew_of
    from clrl.launch.supervisor import Interrupted

    # In a notebook too: lines on standard error rather than boxes of HTML.
    console = Console(stderr=True, quiet=quiet, force_jupyter=False)
    crew = crew_of(how, out)
    try:
        failures = suites.carry_out(
            table, out, console, crew, how.keeping, how.members, how.force, how.device, how.log
        )
    except Interrupted as asked:
        if asked.signal == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + asked.signal) from None
    for failure in failures:
        if failure.mistake:
            raise UsageError(failure.message)
    if failures:
        first = failures[0]
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        raise RunsFailed(
            f"{first.label}: {first.message}{more}; there is more in each run's error.txt in "
            f"{out}, and the same call tries again"
        )


def _seeds(seeds: Any) -> Any:
    """Seeds as `clrl.settings.values.parse_seeds` takes them."""
    if isinstance(seeds, str | int):
        return seeds
    if isinstance(seeds, Iterable):
        return _plain(list(seeds))
    return _plain(seeds)


def _plain(value: Any) -> Any:
    """A value as YAML would give it: NumPy's numbers, tuples and mappings as Python's own."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        raise UsageError(f"expected a list, which has an order, got {show(value)}")
    return value
