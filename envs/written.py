"""Changes and their schedules as plain data, the way YAML holds them: read and written.

One change is a mapping such as ::

    change: physics
    names: [gravity]
    when: {every_steps: 50_000, at_episode_end: true}
    to: {uniform: [5, 15]}
    start: unchanged

Each of ``change``, ``when`` and ``to`` names an entry of its table. It is the name; or the name as
a key, with a value for the first option, a list for the first options or a mapping from options,
beside which further options may stand; or a mapping with ``name`` and options. The options of the
change may stand beside ``change`` as well. Hyphens and underscores mean the same.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from clrl.changes import CHANGES, VALUES, WHEN
from clrl.envs.changes import Change
from clrl.envs.schedules import Schedule, Values, When
from clrl.errors import UsageError, shown
from clrl.registry import Table, importable

_SHAPE = "a mapping with change, when and to"
_TABLES: tuple[tuple[str, Table, type], ...] = (
    ("change", CHANGES, Change),
    ("when", WHEN, When),
    ("to", VALUES, Values),
)


def read(raw: Any, where: str) -> tuple[Change, Schedule]:
    """A change and its schedule from plain data; a pair of objects is left as it is.

    Args:
        raw: see the module.
        where: begins messages, such as ``"changes[0]"``.

    Raises:
        UsageError: an unknown name or option, or a value that does not fit.
    """
    if is_pair(raw):
        change, schedule = raw
        return change, schedule
    if not isinstance(raw, Mapping):
        raise UsageError(f"{where}: expected {_SHAPE}, got {shown(raw)}")
    given = dict(raw)
    for key, _, _ in _TABLES:
        if key not in given:
            raise UsageError(f"{where}: expected {_SHAPE}; there is no {key} in {shown(raw)}")
    start = given.pop("start", "drawn")
    parts = [(given.pop(key), f"{where}.{key}", table, kind) for key, table, kind in _TABLES]
    change = _read_part(*parts[0], beside=given)
    when, to = (_read_part(*part) for part in parts[1:])
    try:
        return change, Schedule(when, to, start)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def is_pair(found: Any) -> bool:
    """Whether something is a change with its schedule."""
    return (
        isinstance(found, (tuple, list))
        and len(found) == 2
        and isinstance(found[0], Change)
        and isinstance(found[1], Schedule)
    )


def write(change: Change, schedule: Schedule) -> dict[str, Any]:
    """Plain data from which `read` makes the same.

    Raises:
        UsageError: a class that no module holds under its name.
    """
    parts = (change, schedule.when, schedule.to)
    plain = {
        key: _write_part(part, table) for part, (key, table, _) in zip(parts, _TABLES, strict=True)
    }
    return {**plain, "start": schedule.start}


def _read_part(
    raw: Any, where: str, table: Table, kind: type, beside: Mapping[str, Any] | None = None
) -> Any:
    name, main, options = _split(raw, where, table)
    doubled = [str(key) for key in beside or {} if key in options]
    if doubled:
        raise UsageError(f"{where}: {doubled[0]} is there twice")
    options |= beside or {}
    cls = table.find(name, where).load()
    if not (isinstance(cls, type) and issubclass(cls, kind) and dataclasses.is_dataclass(cls)):
        raise UsageError(
            f"{where}: expected a frozen dataclass that extends {kind.__name__}, got {name!r}"
        )
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    given = _named(main, list(fields), cls, f"{where}: {name}")
    for key, value in options.items():
        if key in given:
            raise UsageError(f"{where}: {name}: {key} is there twice")
        given[key] = value
    for key in given:
        if key not in fields:
            raise UsageError(f"{where}: unknown option {key!r} of {name}; {_hint(key, fields)}")
    for key, field in fields.items():
        missing = field.default is field.default_factory is dataclasses.MISSING
        if missing and key not in given:
            raise UsageError(f"{where}: {name}: expected {key}, got nothing")
    try:
        return cls(**{key: _numbers(value) for key, value in given.items()})
    except (UsageError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error


def _split(raw: Any, where: str, table: Table) -> tuple[str, Any, dict[str, Any]]:
    """What names an entry: (its name, what stands at it, further options)."""
    if isinstance(raw, str):
        return _spelled(raw), None, {}
    if not isinstance(raw, Mapping) or not raw or not all(isinstance(key, str) for key in raw):
        raise UsageError(
            f"{where}: expected the name of a {table.kind}, or a mapping with it, got {shown(raw)}"
        )
    options = dict(raw)
    if isinstance(options.get("name"), str):
        return _spelled(options.pop("name")), None, options
    known = {entry.name for entry in table}
    named = [key for key in raw if _spelled(key) in known or ":" in key] or list(raw)[:1]
    if len(named) > 1:
        raise UsageError(f"{where}: expected one {table.kind}, got {' and '.join(named)}")
    main = options.pop(named[0])
    return _spelled(named[0]), main, options


def _spelled(name: str) -> str:
    """A name as the tables have it; those of plug-ins stay."""
    return name if ":" in name else name.replace("_", "-")


def _named(main: Any, names: list[str], cls: type, where: str) -> dict[str, Any]:
    """What stands at a name, by the options that it is for."""
    if main is None:
        return {}
    if isinstance(main, Mapping):
        return dict(main)
    values = main if isinstance(main, list | tuple) and not _takes_list(cls, names) else [main]
    if len(values) > len(names):
        expected = f"{', '.join(names)}" if names else "nothing"
        raise UsageError(f"{where}: expected {expected}, got {shown(main)}")
    return dict(zip(names, values, strict=False))


def _takes_list(cls: type, names: list[str]) -> bool:
    """Whether the first option is itself a list."""
    hint = typing.get_type_hints(cls)[names[0]] if names else None
    arms = typing.get_args(hint) or ()
    return any(typing.get_origin(one) is collections.abc.Sequence for one in (hint, *arms))


def _numbers(value: Any) -> Any:
    """Numbers that YAML reads as text, such as 1e-5; whole ones as integers."""
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"expected one of {', '.join(known)}" if list(known) else "it has none"


def _write_part(part: Any, table: Table) -> Any:
    cls = type(part)
    name = next((entry.name for entry in table if _is(entry.target, cls)), "")
    name = name or importable(cls)
    fields = [field for field in dataclasses.fields(part) if field.init]
    if not fields:
        return name
    return {name: {field.name: _plain(getattr(part, field.name)) for field in fields}}


def _is(target: str, cls: type) -> bool:
    package, _, name = target.partition(":")
    return cls.__name__ == name and cls.__module__.startswith(f"{package}.")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
