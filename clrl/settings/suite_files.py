"""Suite files: those that come along and a user's own, read as YAML, with what they extend."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from clrl.errors import UsageError
from clrl.settings.values import Place, mapping, show, suggestion

TEXTS = ("description", "source", "duration")
"""What a suite says to people."""


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


def extended(raw: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
    """A suite with what it takes over from the one that it ``extends``, if any.

    Its own settings replace those of the other, and so do its benchmarks and learners those of
    the same label; what the other says in ``description``, ``source`` and ``duration`` is left.

    Args:
        raw: the suite file's content.
        place: where it was written; a file that it names is looked for beside it.

    Raises:
        UsageError: no such suite or file, or a circle.
    """
    seen = {place.source}
    while "extends" in raw:
        at = place.at("extends")
        name = text(raw["extends"], at)
        file = "/" in name or name.endswith((".yaml", ".yml"))
        source, other = read(str(Path(place.source).parent / name) if file else name)
        if source in seen:
            raise at.error(f"{name!r} extends this suite in turn")
        seen.add(source)
        own = {key: value for key, value in raw.items() if key != "extends"}
        taken = {key: value for key, value in other.items() if key not in TEXTS}
        if "benchmark" in own or ("benchmarks" in own and "benchmark" in taken):
            taken = {key: taken[key] for key in taken if key not in ("benchmark", "benchmarks")}
        for key in ("benchmarks", "learners"):
            if isinstance(own.get(key), Mapping) and isinstance(taken.get(key), Mapping):
                own[key] = {**taken[key], **own[key]}
        raw = {**taken, **own}
    return raw


def text(raw: Any, place: Place) -> str:
    """Check that a value is text.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(raw, str):
        raise place.error(f"expected text, got {show(raw)}")
    return raw.strip()


class _UniqueKeyLoader(yaml.SafeLoader):
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
