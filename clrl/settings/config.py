"""The configuration of a run: from what a user wrote to typed, complete settings.

What a user writes (YAML or command line) is a mapping that holds only what differs from
the defaults. `resolve` turns it into a `RunConfig`, in which every choice has its options
dataclass; `to_dict` turns that back into plain data that resolves to the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clrl.agents.consolidation.table import CONSOLIDATION
from clrl.agents.defaults import DEFAULTS, AgentDefaults
from clrl.agents.optim.table import ADDONS, OPTIMIZERS
from clrl.agents.penalties.table import PENALTIES
from clrl.agents.table import AGENTS, NETWORKS
from clrl.benchmarks import BENCHMARKS, is_control
from clrl.errors import UsageError
from clrl.metrics.table import METRICS
from clrl.options import PositiveInt
from clrl.registry import Table
from clrl.settings.defaults import GENERAL, Defaults, of_agent, with_name
from clrl.settings.values import Place, build, check, known_keys, mapping, show

_LISTS = {
    "add-on": ("addons", "add-ons"),
    "penalty": ("penalties", "penalties"),
    "consolidation": ("consolidation", "methods"),
}
"""Of the tables that a list is chosen from: its key, and what to call its items."""

SETTINGS = ("steps", "log_every", "chunk_size", "engine", "metrics")
"""The settings of a run that choose nothing from a table with options."""


@dataclass(frozen=True)
class Choice:
    """One entry of a table, with its options.

    Attributes:
        name: the entry's name, or ``package.module:Name``.
        options: an instance of the entry's options dataclass.
    """

    name: str
    options: Any

    @property
    def short_name(self) -> str:
        """The name without the module of a plug-in."""
        return short_name(self.name)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run, except its seed.

    Attributes:
        benchmark: where examples come from.
        agent: what is learned, and how it is trained.
        network: what learns.
        optimizer: the base update rule.
        addons: what is done around the base rule, in this order.
        penalties: terms that are added to the loss.
        consolidation: methods against forgetting; naming one tells the learner when a task ends.
        steps: examples that each learner sees.
        log_every: examples between two lines of ``metrics.jsonl``.
        chunk_size: members stepped together; None leaves it to the engine. It changes
            the speed and never the results.
        engine: how updates of fully connected networks are computed: ``compiled`` code,
            operations of torch (``replay``), or ``auto``: compiled where that can be. Last bits
            differ.
        metrics: what is measured besides the table's metrics, as ``package.module:function``.
    """

    benchmark: Choice
    agent: Choice
    network: Choice
    optimizer: Choice
    addons: tuple[Choice, ...] = ()
    penalties: tuple[Choice, ...] = ()
    consolidation: tuple[Choice, ...] = ()
    steps: PositiveInt = 100_000
    log_every: PositiveInt = 1_000
    chunk_size: PositiveInt | None = None
    engine: Literal["auto", "replay", "compiled"] = "auto"
    metrics: tuple[str, ...] = ()


def resolve(raw: Mapping[str, Any], place: Place, defaults: Defaults | None = None) -> RunConfig:
    """Complete and check a run's configuration.

    Args:
        raw: any of RunConfig's fields. A choice is a name, or a mapping with ``name`` and
            options; ``addons``, ``penalties`` and ``consolidation`` are lists of such. A mapping
            without ``name`` is for the default of its kind. Where an optimizer is expected, an
            add-on's name stands for that add-on over ``base`` (the default optimizer unless
            given), with the options of both side by side.
        place: where it was written.
        defaults: what is taken where ``raw`` says nothing; what goes with the agent, unless given.

    Raises:
        UsageError: an unknown name or key, or a value of the wrong type.
    """
    known_keys(raw, [field.name for field in dataclasses.fields(RunConfig)], place)
    at = {key: place.at(key) for key in ("benchmark", "agent", "network")}
    benchmark, agent = names_in(raw, place)
    defaults = defaults or Defaults(of_agent(agent))
    optimizer, addons = resolve_optimizer(raw, place, defaults)
    return RunConfig(
        benchmark=choose(
            BENCHMARKS, with_name(raw.get("benchmark"), benchmark), at["benchmark"], defaults
        ),
        agent=choose(AGENTS, with_name(raw.get("agent"), agent), at["agent"], defaults),
        network=choose(NETWORKS, raw.get("network"), at["network"], defaults),
        optimizer=optimizer,
        addons=addons,
        penalties=choose_all(PENALTIES, raw.get("penalties"), place, defaults),
        consolidation=choose_all(CONSOLIDATION, raw.get("consolidation"), place, defaults),
        **check_settings(raw, place),
    )


def names_in(raw: Mapping[str, Any], place: Place) -> tuple[str, str]:
    """The names of the benchmark and the agent that were written, each as its table has it.

    Of what is not written, the agent follows the benchmark, and the benchmark the agent.

    Raises:
        UsageError: an unknown name, or neither a name nor a mapping.
    """
    at = place.at("benchmark")
    usual = GENERAL["benchmark"]
    if isinstance(raw.get("agent"), str) or "name" in (raw.get("agent") or {}):
        agent = agent_of(raw["agent"], usual, place.at("agent"))
        usual = DEFAULTS.get(agent, AgentDefaults()).benchmark
    name, _ = split_choice(with_name(raw.get("benchmark"), usual), at)
    benchmark = find(BENCHMARKS, of_id(name)[0], at)
    return benchmark, agent_of(raw.get("agent"), benchmark, place.at("agent"))


def agent_of(raw: Any, benchmark: str, place: Place) -> str:
    """The name of the agent that was written, or of the benchmark's default.

    Raises:
        UsageError: an unknown name, or neither a name nor a mapping.
    """
    name, _ = split_choice(with_name(raw, default_agent(benchmark)), place)
    return find(AGENTS, name, place)


def default_agent(benchmark: str) -> str:
    """The agent where none is named: one that acts, for control tasks."""
    return "ppo" if is_control(benchmark) else GENERAL["agent"]


def check_settings(raw: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The `SETTINGS` of a run that ``raw`` gives, checked against `RunConfig`'s types.

    Raises:
        UsageError: a value of the wrong type.
    """
    hints = typing.get_type_hints(RunConfig, include_extras=True)
    found = {
        name: check(hints[name], raw[name], place.at(name)) for name in SETTINGS if name in raw
    }
    for name in found.get("metrics", ()):
        find(METRICS, name, place.at("metrics"))
    return found


def choose(table: Table, raw: Any, place: Place, defaults: Defaults) -> Choice:
    """Resolve one choice from a table.

    Args:
        table: where names are looked up.
        raw: a name, a mapping with ``name`` and options, or one of options alone, or None, for
            the default. For benchmarks also an environment's id, such as ``"CartPole-v1"``.
        place: where it was written.
        defaults: what is taken where ``raw`` says nothing.

    Raises:
        UsageError: an unknown name, an unknown option or a value of the wrong type.
    """
    name, options = split_choice(defaults.named(table.kind, raw), place)
    if table is BENCHMARKS:
        name, given = of_id(name)
        options = {**given, **options}
    return _choice(table, name, options, place, defaults)


def of_id(benchmark: str) -> tuple[str, dict[str, str]]:
    """A benchmark's name and options, where it may be an environment's id, such as Ant-v5."""
    if re.fullmatch(r"\S+-v\d+", benchmark):
        return "gymnasium", {"id": benchmark}
    return benchmark, {}


def resolve_optimizer(
    raw: Mapping[str, Any], place: Place, defaults: Defaults
) -> tuple[Choice, tuple[Choice, ...]]:
    """Resolve the update rule: the base optimizer and its add-ons.

    Args:
        raw: a mapping with ``optimizer`` and ``addons``, both optional.
        place: where the mapping was written.
        defaults: what is taken where ``raw`` says nothing.

    Raises:
        UsageError: as `choose`, or an add-on given twice.
    """
    at = place.at("optimizer")
    name, options = split_choice(defaults.named("optimizer", raw.get("optimizer")), at)
    name = find(update_rules(), name, at)
    if is_addon(name):
        base, first = _over_base(name, options, at, defaults)
        addons = [first]
    else:
        base, addons = _choice(update_rules(), name, options, at, defaults), []
    return base, choose_all(ADDONS, raw.get("addons"), place, defaults, addons)


def choose_all(
    table: Table, raw: Any, place: Place, defaults: Defaults, before: Sequence[Choice] = ()
) -> tuple[Choice, ...]:
    """Resolve a list of choices from a table, such as ``addons``.

    Args:
        table: where names are looked up.
        raw: a list of names or mappings with ``name`` and options, or None for none.
        place: where the mapping that has the list was written.
        defaults: what is taken where ``raw`` says nothing.
        before: choices that are there already, and come first.

    Raises:
        UsageError: as `choose`, or one is there twice.
    """
    key, what = _LISTS[table.kind]
    at = place.at(key)
    if raw is not None and not isinstance(raw, list | tuple):
        raise at.error(f"expected a list of {what}, got {show(raw)}")
    chosen = list(before)
    for item in raw or ():
        name, options = split_choice(item, at)
        made = _choice(table, name, options, at.at(short_name(name)), defaults)
        if any(one.name == made.name for one in chosen):
            raise at.error(f"{name!r} is there twice")
        chosen.append(made)
    return tuple(chosen)


def split_choice(raw: Any, place: Place) -> tuple[str, dict[str, Any]]:
    """A choice as written -> (name, options as written).

    Raises:
        UsageError: it is neither a name nor a mapping with ``name``.
    """
    if isinstance(raw, str):
        return raw, {}
    if not isinstance(raw, Mapping):
        raise place.error(f"expected a name, or a mapping with 'name', got {show(raw)}")
    options = dict(mapping(raw, place))
    if "name" not in options:
        raise place.at("name").error("expected a name, got nothing")
    name = options.pop("name")
    if not isinstance(name, str):
        raise place.at("name").error(f"expected a name, got {show(name)}")
    return name, options


def update_rules() -> Table:
    """What may be named where an optimizer is expected: optimizers and add-ons."""
    return Table("optimizer", [*OPTIMIZERS, *ADDONS])


def is_addon(name: str) -> bool:
    """Whether an optimizer's name is really that of an add-on."""
    return any(entry.name == name for entry in ADDONS)


def short_name(name: str) -> str:
    """``package.module:Name`` -> ``Name``; other names stay."""
    return name.rpartition(":")[2]


def find(table: Table, name: str, place: Place) -> str:
    """A name as its table spells it.

    Raises:
        UsageError: no such name.
    """
    return table.find(name, str(place)).name


def _choice(
    table: Table, name: str, options: Mapping[str, Any], place: Place, defaults: Defaults
) -> Choice:
    name = find(table, name, place)
    known = defaults.options(name)
    return Choice(name, build(options_type(table, name, place), {**known, **options}, place))


def options_type(table: Table, name: str, place: Place) -> type:
    """The options dataclass of a named entry.

    Raises:
        UsageError: no such name, or a plug-in that cannot be imported.
    """
    entry = table.find(name, str(place))
    try:
        return entry.options_type()
    except UsageError as error:
        raise place.error(str(error)) from error


def _over_base(
    name: str, options: dict[str, Any], place: Place, defaults: Defaults
) -> tuple[Choice, Choice]:
    """An add-on named as the optimizer, with its base's options and its own mixed."""
    at = place.at("base")
    base_name, base_options = split_choice(
        defaults.named("optimizer", options.pop("base", None)), at
    )
    base_name = find(update_rules(), base_name, at)
    if is_addon(base_name):
        raise at.error(f"expected an optimizer, got the add-on {base_name!r}")
    of_base, of_addon = (
        {field.name for field in dataclasses.fields(options_type(table, one, where))}
        for table, one, where in ((OPTIMIZERS, base_name, at), (ADDONS, name, place))
    )
    known_keys(options, ["base", *of_addon, *of_base], place)
    for key in sorted(of_base & of_addon & options.keys()):
        raise place.at(key).error(f"both {base_name!r} and {name!r} have it; write addons: apart")
    base_options |= {key: options[key] for key in options if key in of_base}
    addon_options = {key: options[key] for key in options if key in of_addon}
    return (
        _choice(OPTIMIZERS, base_name, base_options, place, defaults),
        _choice(ADDONS, name, addon_options, place, defaults),
    )


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain data (as YAML and JSON hold it) that `resolve` turns into the same."""
    return {
        "benchmark": choice_to_dict(config.benchmark),
        "agent": choice_to_dict(config.agent),
        "network": choice_to_dict(config.network),
        "optimizer": choice_to_dict(config.optimizer),
        "addons": [choice_to_dict(addon) for addon in config.addons],
        "penalties": [choice_to_dict(penalty) for penalty in config.penalties],
        "consolidation": [choice_to_dict(method) for method in config.consolidation],
        **settings_to_dict(config),
    }


def settings_to_dict(config: RunConfig) -> dict[str, Any]:
    """The `SETTINGS` as plain data; ``metrics`` where there are any."""
    plain = {name: _plain(getattr(config, name)) for name in SETTINGS}
    return {name: value for name, value in plain.items() if name != "metrics" or value}


def choice_to_dict(choice: Choice) -> dict[str, Any]:
    """A choice as plain data: its name and all its options.

    Options that hold more than plain values have a method ``to_dict`` that says them.
    """
    if hasattr(choice.options, "to_dict"):
        return {"name": choice.name, **choice.options.to_dict()}
    options = {
        field.name: _plain(getattr(choice.options, field.name))
        for field in dataclasses.fields(choice.options)
    }
    return {"name": choice.name, **options}


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def config_hash(config: RunConfig) -> str:
    """SHA-256 of the settings that decide a run's results, as hexadecimal text.

    ``chunk_size`` is left out, since it decides the speed alone.
    """
    plain = to_dict(config)
    del plain["chunk_size"]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The settings in which two configurations (as `to_dict` gives them) differ.

    Returns:
        One text a setting, such as ``"optimizer.lr 0.01 -> 0.1"``; ``chunk_size`` is left
        out.
    """
    before, after = flat(old), flat(new)
    keys = [key for key in {**before, **after} if key != "chunk_size"]
    return [
        f"{key} {show(before.get(key))} -> {show(after.get(key))}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def flat(plain: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists of mappings (as `to_dict` gives them) -> dotted keys."""
    if isinstance(plain, list) and any(isinstance(item, Mapping) for item in plain):
        named = all(isinstance(item, Mapping) and "name" in item for item in plain)
        plain = {
            short_name(str(item["name"])) if named else str(index): item
            for index, item in enumerate(plain)
        }
    if not isinstance(plain, Mapping):
        return {prefix: plain}
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if key in ("addons", "penalties", "consolidation") and not value:
            continue
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
