"""Suites as they are written: which there are, and what their YAML says."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from clrl.errors import UsageError
from clrl.settings.values import Place, mapping, suggestion

try:
    from yaml import CSafeLoader as SafeLoader  # ten times as fast
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]


def names() -> list[str]:
    """The suites that come with the package."""
    files = importlib.resources.files("clrl.configs").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def read(name: str) -> tuple[str, Mapping[str, Any]]:
    """Read a suite's YAML.

    Args:
        name: a suite that comes with the package, or a file (recognised by a slash or by
            its ending, ``.yaml`` or ``.yml``).

    Returns:
        What to call it in messages, and its content.

    Raises:
        UsageError: no such suite or file, or a file that is not a YAML mapping.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        source = name
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise UsageError(f"{name}: cannot read the suite file: {reason}") from error
    elif name in names():
        source = f"{name}.yaml"
        text = (importlib.resources.files("clrl.configs") / source).read_text(encoding="utf-8")
    else:
        raise UsageError(f"unknown suite {name!r}; {suggestion(name, names())}")
    place = Place(source)
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise place.error(_yaml_message(error)) from error
    return source, mapping(content, place)


class _UniqueKeyLoader(SafeLoader):
    """YAML's safe loader, except that a key that is there twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_message(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark else f"not YAML: {problem}"
