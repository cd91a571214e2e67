"""The options of ``clrl run``, which depend on what is chosen.

``--optimizer upgd`` brings UPGD's options with it, as ``--optimizer.sigma``; so the
choices are read first, and the dataclass that describes the command line is made to
measure. An add-on's options are ``--addons.NAME.OPTION``, a penalty's ``--penalties.NAME.OPTION``,
and a method against forgetting has ``--consolidation.NAME.OPTION``.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from clrl.agents.consolidation.table import CONSOLIDATION
from clrl.agents.optim.table import ADDONS
from clrl.agents.penalties.table import PENALTIES
from clrl.agents.table import AGENTS, NETWORKS
from clrl.benchmarks import BENCHMARKS
from clrl.cli.arguments import parse, values_after
from clrl.errors import UsageError
from clrl.launch.options import LaunchOptions
from clrl.options import PositiveInt
from clrl.registry import Table
from clrl.settings import sweep
from clrl.settings.config import (
    RunConfig,
    find,
    is_addon,
    of_id,
    options_type,
    resolve,
    short_name,
    update_rules,
)
from clrl.settings.defaults import GENERAL, Defaults
from clrl.settings.origins import Origins, origins
from clrl.settings.values import Place, build
from clrl.tuned import defaults_for

_LISTS = {"addons": ADDONS, "penalties": PENALTIES, "consolidation": CONSOLIDATION}
_NAME = {"metavar": "NAME"}
_WHOLE = {"metavar": "WHOLE"}


@dataclass(frozen=True)
class RunArguments(LaunchOptions):
    """Train one learner on one benchmark, a run for each seed.

    What is chosen brings its options: clrl run --optimizer upgd --help shows UPGD's.

    Attributes:
        benchmark: see clrl list benchmarks; also an environment's id, such as CartPole-v1.
        agent: see clrl list agents; ppo on control tasks unless given, and supervised on streams.
        network: see clrl list networks; what goes with the agent unless given.
        optimizer: see clrl list optimizers; adam with ppo unless given, sgd with supervised. An
            add-on's name stands for it over that.
        addons: what is done around the optimizer; see clrl list addons.
        penalties: terms added to the loss; see clrl list penalties.
        consolidation: methods against forgetting; see clrl list consolidation.
        metrics: functions of your own to measure besides, as package.module:function.
        steps: examples that each learner sees, or steps of its environments together.
        log_every: steps between two lines of metrics.jsonl.
        chunk_size: members stepped together; as suits the network's size unless given.
        engine: compiled code, operations of torch (replay), or the former where that can be (auto).
        seeds: such as 0-9 or 0,2,5-7.
        label: the learner's folder; named after optimizer, add-ons and methods unless given.
        out: the folder for results; runs/BENCHMARK unless given.
    """

    benchmark: str = field(default=GENERAL["benchmark"], metadata=_NAME)
    agent: str | None = field(default=None, metadata=_NAME)
    network: str | None = field(default=None, metadata=_NAME)
    optimizer: str | None = field(default=None, metadata=_NAME)
    addons: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME ..."})
    penalties: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME ..."})
    consolidation: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME ..."})
    metrics: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME ..."})
    steps: PositiveInt = RunConfig.steps
    log_every: PositiveInt = RunConfig.log_every
    chunk_size: PositiveInt | None = field(default=None, metadata=_WHOLE)
    engine: Literal["auto", "replay", "compiled"] = RunConfig.engine
    seeds: str = field(default="0", metadata={"metavar": "SEEDS"})
    label: str | None = field(default=None, metadata={"metavar": "NAME"})
    out: str | None = field(default=None, metadata={"metavar": "DIR"})


@dataclass(frozen=True)
class Execution:
    """What a command line says besides the configuration.

    Attributes:
        seeds: as typed.
        out: the folder for results; None for the default.
        how: how the runs are carried out.
        label: of the learner, in place of the names of what was chosen.
        settings: of a sweep: what each setting adds to the label, and its configuration.
        origins: every setting of the first, with where it came from.
    """

    seeds: str
    out: str | None
    how: LaunchOptions
    label: str | None
    settings: dict[str, RunConfig]
    origins: Origins


def read_run(argv: Sequence[str]) -> tuple[RunConfig, Execution]:
    """Read the command line of ``clrl run``.

    Args:
        argv: the arguments.

    Returns:
        The configuration, of a sweep's first setting, and the rest.

    Raises:
        UsageError: anything wrong in them.
        SystemExit: help was asked for, and printed.
    """
    given = parse(_spec(argv), argv, "clrl run")
    place = Place()
    names = [field.name for field in dataclasses.fields(LaunchOptions)]
    how = build(LaunchOptions, {name: given.pop(name) for name in names if name in given}, place)
    seeds, out, label = given.pop("seeds", "0"), given.pop("out", None), given.pop("label", None)
    raw = {key: value for key, value in given.items() if not key.endswith("_options")}
    for kind in ("benchmark", "agent", "network", "optimizer"):
        options = _values(given.get(f"{kind}_options", {}))
        if options or kind in raw:
            raw[kind] = {**({"name": raw[kind]} if kind in raw else {}), **options}
    for kind in _LISTS:
        by_name = given.get(f"{kind}_options", {})
        raw[kind] = [
            {"name": name, **_values(by_name.get(_field_name(name), {}))}
            for name in raw.get(kind, [])
        ]
    defaults = defaults_for(raw, place)[1]
    parts = {key: (raw[key], place.at(key)) for key in _SWEPT if key in raw}
    settings: dict[str, RunConfig] = {}
    firsts: list[Origins] = []
    for values, choices in sweep.settings(parts, defaults):
        one = {**raw, **choices}
        settings[sweep.label(values)] = resolve(one, place, defaults)
        firsts.append(origins(settings[sweep.label(values)], one, defaults, "command line"))
    config = next(iter(settings.values()))
    return config, Execution(seeds, out, how, label, settings, firsts[0])


_SWEPT = ("optimizer", "addons", "penalties", "consolidation", "network", "agent")


def _values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as YAML would give them: what is written in brackets is a list."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        words = value if isinstance(value, list) else [value]
        if words and all(isinstance(word, str) and word.startswith("[") for word in words):
            try:
                lists = [yaml.safe_load(word) for word in words]
            except yaml.YAMLError as error:
                raise UsageError(
                    f"--{key}: expected a list such as [64, 64], got {words}"
                ) from error
            value = lists[0] if len(lists) == 1 else lists
        found[key] = value
    return found


def _spec(argv: Sequence[str]) -> type:
    """`RunArguments` with the options of what the command line chooses, and their defaults."""
    chosen = {
        kind: values[0]
        for kind in ("benchmark", "agent", "network", "optimizer", "optimizer.base")
        if (values := values_after(argv, f"--{kind}"))
    }
    rule = {"name": chosen["optimizer"]} if "optimizer" in chosen else {}
    if "optimizer.base" in chosen:
        rule["base"] = chosen["optimizer.base"]
    said = {key: chosen.get(key) for key in ("benchmark", "agent")}
    names, defaults = defaults_for({**said, "optimizer": rule or None}, Place())
    parts: list[tuple[str, type, str]] = []
    for kind, table in (("benchmark", BENCHMARKS), ("agent", AGENTS), ("network", NETWORKS)):
        name = names.get(kind) or chosen.get(kind) or str(defaults.name(kind))
        parts.append((f"{kind}_options", _options(table, name, Place().at(kind), defaults), kind))
    parts.append(("optimizer_options", _optimizer_spec(chosen, defaults), "optimizer"))
    for kind, table in _LISTS.items():
        given = [
            (_field_name(name), _options(table, name, Place().at(kind), defaults), short_name(name))
            for name in dict.fromkeys(values_after(argv, f"--{kind}"))
        ]
        if given:
            parts.append((f"{kind}_options", _bundle(kind.capitalize(), given), kind))
    return _bundle("Run", parts, RunArguments)


def _options(table: Table, name: str, place: Place, defaults: Defaults) -> type:
    """The options of a named entry, with the defaults that they have here."""
    of_name, options = of_id(name) if table is BENCHMARKS else (name, {})
    own = options_type(table, of_name, place)
    here = {**defaults.options(find(table, of_name, place)), **options}
    fields = [
        (one.name, hint, field(default=here[one.name]))
        for one in dataclasses.fields(own)
        if one.name in here
        for hint in [typing.get_type_hints(own, include_extras=True)[one.name]]
    ]
    if not fields:
        return own
    made = dataclasses.make_dataclass(own.__name__, fields, bases=(own,), frozen=True)
    made.__doc__ = own.__doc__
    return made


def _optimizer_spec(chosen: Mapping[str, str], defaults: Defaults) -> type:
    place = Place().at("optimizer")
    usual = str(defaults.name("optimizer"))
    name = find(update_rules(), chosen.get("optimizer", usual), place)
    options = _options(update_rules(), name, place, defaults)
    if not is_addon(name):
        return options
    base_name = chosen.get("optimizer.base", usual)
    base = _options(update_rules(), base_name, place.at("base"), defaults)
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
        (key, options, field(default=None, metadata={"prefix": prefix, "sweeps": True}))
        for key, options, prefix in parts
    ]
    bases = (base,) if base else ()
    made = dataclasses.make_dataclass(name, fields, bases=bases, frozen=True)
    made.__doc__ = base.__doc__ if base else ""
    return made


def _field_name(name: str) -> str:
    """An add-on's name as the name of a field."""
    return "".join(letter if letter.isalnum() else "_" for letter in short_name(name))
