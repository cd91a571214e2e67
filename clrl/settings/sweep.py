"""Sweeps: lists where a learner has single values, and the settings that they stand for."""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from clrl.agents.consolidation.table import CONSOLIDATION
from clrl.agents.optim.table import ADDONS
from clrl.agents.penalties.table import PENALTIES
from clrl.agents.table import AGENTS, NETWORKS
from clrl.registry import Table
from clrl.settings.config import (
    find,
    is_addon,
    options_type,
    short_name,
    split_choice,
    update_rules,
)
from clrl.settings.defaults import Defaults
from clrl.settings.values import Place, check, nesting, show

Part = tuple[Any, Place]
"""What a learner says of its optimizer, add-ons, network or agent, and where it was written."""

Swept = dict[tuple[str, str], Any]
"""One value of each swept option; the option's key after what it belongs to."""


def settings(
    parts: Mapping[str, Part], defaults: Defaults
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """All settings that a learner stands for: one unless there are lists.

    Where an option takes a single value, a list of values is a sweep; where it takes a list, a
    list of lists is. Several sweeps give their product, the last one changing fastest.

    Args:
        parts: ``optimizer``, ``addons``, ``penalties``, ``consolidation``, ``network``, ``agent``:
            what there is.
        defaults: which names are taken where none is given.

    Yields:
        The swept options' values of one setting, by name (``lr``, or ``optimizer.lr`` where
        two parts sweep an ``lr``), and the parts without lists.

    Raises:
        UsageError: a list without values, with a value twice or with a value of the wrong
            type; or an unknown name in a part that has lists.
    """
    spread = [_spread_part(key, raw, place, defaults) for key, (raw, place) in parts.items()]
    for chosen in itertools.product(*spread):
        swept: Swept = {key: value for own, _ in chosen for key, value in own.items()}
        short = [key for _, key in swept]
        values = {
            key if short.count(key) == 1 else f"{owner}.{key}": value
            for (owner, key), value in swept.items()
        }
        yield values, {key: raw for key, (_, raw) in zip(parts, chosen, strict=True)}


def label(values: Mapping[str, Any]) -> str:
    """What a setting adds to its learner's label, such as ``+lr=0.001``."""
    return "".join(f"+{name}={_text(value)}" for name, value in values.items())


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
    return re.sub(r"[^A-Za-z0-9._+=,-]", "-", text)


def _spread_part(key: str, raw: Any, place: Place, defaults: Defaults) -> list[tuple[Swept, Any]]:
    tables = {
        "network": NETWORKS,
        "agent": AGENTS,
        "addons": ADDONS,
        "penalties": PENALTIES,
        "consolidation": CONSOLIDATION,
    }
    if key == "optimizer":
        return _spread_optimizer(defaults.named(key, raw), place, defaults)
    if not isinstance(raw, list):
        raw = defaults.named(key, raw)
        return _spread(key, raw, _hints(tables[key], raw, place), place)
    each = []
    for item in raw:
        if isinstance(item, Mapping) and isinstance(item.get("name"), str):
            name = short_name(item["name"])
            here = place.at(name)
            each.append(_spread(name, item, _hints(tables[key], item, here), here))
        else:
            each.append([({}, item)])
    return [
        ({k: v for own, _ in chosen for k, v in own.items()}, [item for _, item in chosen])
        for chosen in itertools.product(*each)
    ]


def _spread_optimizer(raw: Any, place: Place, defaults: Defaults) -> list[tuple[Swept, Any]]:
    hints = _hints(update_rules(), raw, place)
    if not hints or not is_addon(find(update_rules(), raw["name"], place)):
        return _spread("optimizer", raw, hints, place)
    base = defaults.named("optimizer", raw.get("base"))
    at = place.at("base")
    of_base = _hints(update_rules(), {"name": base} if isinstance(base, str) else base, at)
    found = []
    for own, variant in _spread("optimizer", raw, {**of_base, **hints}, place):
        for more, one in _spread("base", base, of_base, at):
            found.append(({**own, **more}, {**variant, "base": one}))
    return found


def _hints(table: Table, raw: Any, place: Place) -> dict[str, Any]:
    """The types of a choice's options; none where there are no lists to understand."""
    if not isinstance(raw, Mapping) or "name" not in raw:
        return {}
    name, _ = split_choice(raw, place)
    return typing.get_type_hints(options_type(table, name, place), include_extras=True)


def _spread(
    owner: str, raw: Any, hints: Mapping[str, Any], place: Place
) -> list[tuple[Swept, Any]]:
    """All settings of one choice: swept options and the choice without lists."""
    if not isinstance(raw, Mapping):
        return [({}, raw)]
    swept = {
        key: _values(hints[key], value, place.at(str(key)))
        for key, value in raw.items()
        if key in hints and _is_sweep(hints[key], value)
    }
    found = []
    for chosen in itertools.product(*swept.values()):
        values = dict(zip(swept, chosen, strict=True))
        found.append(
            ({(owner, key): value for key, value in values.items()}, {**raw, **values}),
        )
    return found


def _is_sweep(hint: Any, raw: Any) -> bool:
    return isinstance(raw, list) and _depth(raw) == nesting(hint) + 1


def _depth(raw: Any) -> int:
    return 1 + max(map(_depth, raw), default=0) if isinstance(raw, list) else 0


def _values(hint: Any, raw: list[Any], place: Place) -> list[Any]:
    if not raw:
        raise place.error("expected a value, or a list of values, got an empty list")
    values: list[Any] = []
    for item in raw:
        value = check(hint, item, place)
        if value in values:
            raise place.error(f"{show(item)} is there twice")
        values.append(value)
    return values
