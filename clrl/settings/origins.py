"""Where each setting of a run came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clrl.settings.config import Choice, RunConfig, choice_to_dict, settings_to_dict
from clrl.settings.defaults import Defaults

Origins = dict[str, tuple[Any, str]]
"""Setting to value and source, such as ``{"optimizer.lr": (3e-4, "agent ppo")}``; a choice's own
name is under ``"optimizer"``."""

DEFAULT = "default"


def origins(config: RunConfig, raw: Mapping[str, Any], defaults: Defaults, source: str) -> Origins:
    """Every setting with where it came from.

    Args:
        config: what ``raw`` became.
        raw: what was written, as `clrl.settings.config.resolve` takes it.
        defaults: what was taken where it said nothing.
        source: what to call the place where it was written.
    """
    found: Origins = {}

    def add(key: str, choice: Choice, written: Mapping[str, Any], named: str) -> None:
        found[key] = (choice.name, named)
        for option, value in choice_to_dict(choice).items():
            if option != "name":
                usual = defaults.source_of(choice.name, option)
                found[f"{key}.{option}"] = (value, source if option in written else usual)

    for kind in ("benchmark", "agent", "network"):
        written = _options(raw.get(kind))
        usual = defaults.source(kind) if kind == "network" else _follows(kind, raw, config)
        add(kind, getattr(config, kind), written, source if "name" in written else usual)
    rule = _options(raw.get("optimizer"))
    named = source if "name" in rule else defaults.source("optimizer")
    of_base = {**rule, **_options(rule.get("base"))}
    over = (
        config.addons[0].name if config.addons and rule.get("name") != config.optimizer.name else ""
    )
    base_named = defaults.source("optimizer") if over and rule.get("base") is None else named
    add("optimizer", config.optimizer, of_base, base_named)
    for kind in ("addons", "penalties", "consolidation"):
        listed = {one["name"]: one for one in map(_options, raw.get(kind) or ())}
        for choice in getattr(config, kind):
            written = rule if choice.name == over and choice.name not in listed else {}
            add(f"{kind}.{choice.short_name}", choice, listed.get(choice.name, written), source)
    for key in settings_to_dict(config):
        found[key] = (getattr(config, key), source if raw.get(key) is not None else DEFAULT)
    return found


def _options(raw: Any) -> Mapping[str, Any]:
    """A choice as written, as a mapping."""
    return {"name": raw} if isinstance(raw, str) else raw or {}


def _follows(kind: str, raw: Mapping[str, Any], config: RunConfig) -> str:
    """What a benchmark or an agent that nobody named follows from."""
    other = "agent" if kind == "benchmark" else "benchmark"
    return f"{other} {getattr(config, other).name}" if raw.get(other) else DEFAULT
