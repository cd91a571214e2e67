"""What is taken where a user says nothing: by layers, of which the first that knows decides.

From the nearest: what a suite that comes along has for the benchmark (see `clrl.tuned`), what goes
with the agent (`clrl.agents.defaults`), and what the options' own dataclasses have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clrl.agents.defaults import DEFAULTS, AgentDefaults

GENERAL = {
    "benchmark": "permuted-digits",
    "agent": "supervised",
    "network": "mlp",
    "optimizer": "sgd",
}
"""What is chosen where nothing is said, nor follows from anything that is."""


@dataclass(frozen=True)
class Layer:
    """Defaults from one place.

    Attributes:
        source: what to call the place, such as ``"suite offset-cartpole"``.
        names: kind of table, such as ``"optimizer"``, to the name that is taken there.
        options: name to the options that differ from its own defaults.
    """

    source: str
    names: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Defaults:
    """Layers of defaults, one behind the other.

    Args:
        layers: from the nearest; `GENERAL` comes last, and is always there.
    """

    def __init__(self, *layers: Layer) -> None:
        self._layers = (*layers, Layer("default", GENERAL))

    def name(self, kind: str) -> str | None:
        """The name that is taken for a kind of table; None where there is none."""
        found = (layer.names[kind] for layer in self._layers if kind in layer.names)
        return next(found, None)

    def named(self, kind: str, raw: Any) -> Any:
        """A choice as written, with its name where a mapping, or nothing, is without one."""
        return with_name(raw, self.name(kind))

    def options(self, name: str) -> dict[str, Any]:
        """The options of a name that differ from its own defaults."""
        found: dict[str, Any] = {}
        for layer in reversed(self._layers):
            found |= layer.options.get(name, {})
        return found

    def source(self, kind: str) -> str:
        """Where the name of a kind comes from."""
        return next(layer.source for layer in self._layers if kind in layer.names)

    def source_of(self, name: str, option: str) -> str:
        """Where an option's default comes from."""
        near = (one.source for one in self._layers if option in one.options.get(name, {}))
        return next(near, "default")


def with_name(raw: Any, name: str | None) -> Any:
    """A choice as written, named like this where a mapping, or nothing, is without a name."""
    if name is None or not (raw is None or (isinstance(raw, Mapping) and "name" not in raw)):
        return raw
    return {"name": name, **(raw or {})}


def of_agent(agent: str) -> Layer:
    """What goes with an agent."""
    own = DEFAULTS.get(agent, AgentDefaults())
    names = {"optimizer": own.optimizer, "network": own.network}
    return Layer(f"agent {agent}", names, own.options)
