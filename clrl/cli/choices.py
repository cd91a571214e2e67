"""The options of ``clrl run``, which depend on what is chosen.

``--optimizer upgd`` brings UPGD's options with it, as ``--optimizer.sigma``; so the
choices are read first, and the dataclass that describes the command line is made to
measure. An add-on's options are ``--addons.NAME.OPTION``, a penalty's ``--penalties.NAME.OPTION``,
and a method against forgetting has ``--consolidation.NAME.OPTION``.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clrl.agents.consolidation.table import CONSOLIDATION
from clrl.agents.optim.table import ADDONS
from clrl.agents.penalties.table import PENALTIES
from clrl.agents.table import AGENTS, NETWORKS
from clrl.benchmarks import BENCHMARKS
from clrl.cli.arguments import parse, values_after
from clrl.launch.options import LaunchOptions
from clrl.options import PositiveInt
from clrl.settings.config import (
    DEFAULTS,
    RunConfig,
    default_agent,
    is_addon,
    options_type,
    resolve,
    short_name,
    update_rules,
)
from clrl.settings.values import Place, build

_LISTS = {"addons": ADDONS, "penalties": PENALTIES, "consolidation": CONSOLIDATION}
_NAME = {"metavar": "NAME"}
_WHOLE = {"metavar": "WHOLE"}


@dataclass(frozen=True)
class RunArguments(LaunchOptions):
    """Train one learner on one benchmark, a run for each seed.

    What is chosen brings its options: clrl run --optimizer upgd --help shows UPGD's.

    Attributes:
        benchmark: see clrl list benchmarks.
        agent: see clrl list agents; ppo on control tasks unless given, and supervised on streams.
        network: see clrl list networks.
        optimizer: see clrl list optimizers; an add-on's name stands for it over sgd.
        addons: what is done around the optimizer; see clrl list addons.
        penalties: terms added to the loss; see clrl list penalties.
        consolidation: methods against forgetting; see clrl list consolidation.
        steps: examples that each learner sees.
        log_every: examples between two lines of metrics.jsonl.
        chunk_size: members stepped together; as suits the network's size unless given.
        seeds: such as 0-9 or 0,2,5-7.
        out: the folder for results; runs/BENCHMARK unless given.
    """

    benchmark: str = field(default=DEFAULTS["benchmark"], metadata=_NAME)
    agent: str | None = field(default=None, metadata=_NAME)
    network: str = field(default=DEFAULTS["network"], metadata=_NAME)
    optimizer: str = field(default=DEFAULTS["optimizer"], metadata=_NAME)
    addons: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME ..."})
    penalties: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME ..."})
    consolidation: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME ..."})
    steps: PositiveInt = RunConfig.steps
    log_every: PositiveInt = RunConfig.log_every
    chunk_size: PositiveInt | None = field(default=None, metadata=_WHOLE)
    seeds: str = field(default="0", metadata={"metavar": "SEEDS"})
    out: str | None = field(default=None, metadata={"metavar": "DIR"})


@dataclass(frozen=True)
class Execution:
    """What a command line says besides the configuration.

    Attributes:
        seeds: as typed.
        out: the folder for results; None for the default.
        how: how the runs are carried out.
    """

    seeds: str
    out: str | None
    how: LaunchOptions


def read_run(argv: Sequence[str]) -> tuple[RunConfig, Execution]:
    """Read the command line of ``clrl run``.

    Args:
        argv: the arguments.

    Raises:
        UsageError: anything wrong in them.
        SystemExit: help was asked for, and printed.
    """
    given = parse(_spec(argv), argv, "clrl run")
    place = Place()
    names = [field.name for field in dataclasses.fields(LaunchOptions)]
    how = build(LaunchOptions, {name: given.pop(name) for name in names if name in given}, place)
    execution = Execution(given.pop("seeds", "0"), given.pop("out", None), how)
    raw = {key: value for key, value in given.items() if not key.endswith("_options")}
    for kind in ("benchmark", "agent", "network", "optimizer"):
        options = given.get(f"{kind}_options", {})
        if options or kind in raw:
            raw[kind] = {"name": raw.get(kind, _default(kind, argv)), **options}
    for kind in _LISTS:
        by_name = given.get(f"{kind}_options", {})
        raw[kind] = [
            {"name": name, **by_name.get(_field_name(name), {})} for name in raw.get(kind, [])
        ]
    return resolve(raw, place), execution


def _spec(argv: Sequence[str]) -> type:
    """`RunArguments` with the options of what the command line chooses."""
    parts: list[tuple[str, type, str]] = []
    for kind, table in (("benchmark", BENCHMARKS), ("agent", AGENTS), ("network", NETWORKS)):
        name = (values_after(argv, f"--{kind}") or [_default(kind, argv)])[0]
        parts.append((f"{kind}_options", options_type(table, name, Place().at(kind)), kind))
    parts.append(("optimizer_options", _optimizer_spec(argv), "optimizer"))
    for kind, table in _LISTS.items():
        chosen = [
            (_field_name(name), options_type(table, name, Place().at(kind)), short_name(name))
            for name in dict.fromkeys(values_after(argv, f"--{kind}"))
        ]
        if chosen:
            parts.append((f"{kind}_options", _bundle(kind.capitalize(), chosen), kind))
    return _bundle("Run", parts, RunArguments)


def _default(kind: str, argv: Sequence[str]) -> str:
    """What is chosen where the command line does not say."""
    if kind != "agent":
        return DEFAULTS[kind]
    return default_agent((values_after(argv, "--benchmark") or [DEFAULTS["benchmark"]])[0])


def _optimizer_spec(argv: Sequence[str]) -> type:
    place = Place().at("optimizer")
    name = (values_after(argv, "--optimizer") or [DEFAULTS["optimizer"]])[0]
    options = options_type(update_rules(), name, place)
    if not is_addon(name):
        return options
    base_name = (values_after(argv, "--optimizer.base") or [DEFAULTS["optimizer"]])[0]
    base = options_type(update_rules(), base_name, place.at("base"))
    fields: dict[str, tuple[str, Any, Any]] = {
        "base": ("base", str, field(default=base_name, metadata=_NAME))
    }
    for source in (base, options):
        hints = typing.get_type_hints(source, include_extras=True)
        for item in dataclasses.fields(source):
            fields[item.name] = (item.name, hints[item.name], field(default=item.default))
    made = dataclasses.make_dataclass(f"{name}-over-{base_name}", fields.values(), frozen=True)
    made.__doc__ = f"{name} over {base_name}: the options of both."
    return made


def _bundle(name: str, parts: list[tuple[str, type, str]], base: type | None = None) -> type:
    """A dataclass whose fields are option groups: (field, dataclass, prefix)."""
    fields = [
        (key, options, field(default=None, metadata={"prefix": prefix}))
        for key, options, prefix in parts
    ]
    bases = (base,) if base else ()
    made = dataclasses.make_dataclass(name, fields, bases=bases, frozen=True)
    made.__doc__ = base.__doc__ if base else ""
    return made


def _field_name(name: str) -> str:
    """An add-on's name as the name of a field."""
    return "".join(letter if letter.isalnum() else "_" for letter in short_name(name))
