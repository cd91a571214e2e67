"""Checks a value that a user wrote against the type that its dataclass declares.

Values come from YAML or from the command line; types from frozen dataclasses (see
`clrl.options`). Text is read as a number where a number is declared, since YAML reads
``1e-3`` as text and the command line knows nothing else; nothing else is converted, and
a boolean never becomes a number. Every mistake is one line: where, what was expected,
what was there.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from clrl.errors import UsageError
from clrl.registry import Untyped


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a value was written, for messages.

    Attributes:
        source: the file's name; empty for the command line.
        keys: the path of keys inside it.
    """

    source: str = ""
    keys: tuple[str, ...] = ()

    def at(self, *keys: str) -> Place:
        """The place of a key below this one."""
        return dataclasses.replace(self, keys=(*self.keys, *keys))

    def spell(self, key: str) -> str:
        """A key the way it is written here: hyphens on the command line."""
        return key if self.source else key.replace("_", "-")

    def __str__(self) -> str:
        """``file: key.key`` or ``--key.key``."""
        path = ".".join(self.spell(key) for key in self.keys)
        if self.source:
            return f"{self.source}: {path}" if path else self.source
        return f"--{path}" if path else "command line"

    def error(self, message: str) -> UsageError:
        """The exception to raise for a mistake here; the message becomes one line."""
        return UsageError(f"{self}: " + " ".join(message.split()))


def check(hint: Any, raw: Any, place: Place) -> Any:
    """Check one value.

    Args:
        hint: the declared type, such as ``Annotated[float, Ge(0)]``.
        raw: what the user wrote.
        place: where.

    Returns:
        The value, of the declared type (a list becomes a tuple).

    Raises:
        UsageError: the value does not fit the type.
    """
    if hint in (str, bool) and isinstance(raw, hint):
        return raw  # pydantic takes a while to import, and `clrl list` can do without
    if hint is Untyped:
        if raw is None:
            return None
        name = place.keys[-1]
        raise place.error(
            f"its type is not to be told; write one in the plug-in's signature, such as "
            f"{name}: float | None = None"
        )
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    config = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    try:
        return TypeAdapter(hint, config=config).validate_python(_read(hint, raw))
    except ValidationError:
        raise place.error(f"expected {describe(hint)}, got {show(raw)}") from None
    except _NotYAML as error:
        raise place.error(f"expected {describe(hint)}, got {show(raw)}: {error}") from None


def build(options: type, raw: Mapping[str, Any], place: Place) -> Any:
    """Make a frozen dataclass from the options that a user wrote.

    Args:
        options: the dataclass type; it owns names, types and defaults.
        raw: option name to value.
        place: where.

    Raises:
        UsageError: an unknown name, a value of the wrong type, or an option without a
            default that is not given.
    """
    hints = typing.get_type_hints(options, include_extras=True)
    fields = dataclasses.fields(options)
    known_keys(raw, [field.name for field in fields], place)
    values = {}
    for field in fields:
        if field.name in raw and dataclasses.is_dataclass(hints[field.name]):
            values[field.name] = build(hints[field.name], raw[field.name], place.at(field.name))
        elif field.name in raw:
            values[field.name] = check(hints[field.name], raw[field.name], place.at(field.name))
        elif field.default is field.default_factory is dataclasses.MISSING:
            hint = describe(hints[field.name])
            raise place.at(field.name).error(f"expected {hint}, got nothing")
    try:
        return options(**values)
    except (UsageError, ValueError) as error:  # a check that involves several options
        raise place.error(str(error)) from error


def known_keys(raw: Mapping[Any, Any], known: Iterable[str], place: Place) -> None:
    """Refuse a key that is not known, with the nearest one that is.

    Raises:
        UsageError: naming the first unknown key.
    """
    known = list(known)
    for key in raw:
        if key not in known:
            names = [place.spell(name) for name in known]
            raise place.at(str(key)).error("unknown key; " + suggestion(str(key), names))


def suggestion(name: str, known: list[str]) -> str:
    """What to write in place of an unknown name: the nearest known one, or all of them."""
    alike = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), alike, n=1, cutoff=0.5)
    if near:
        return f"did you mean {alike[near[0]]!r}?"
    return f"expected one of {', '.join(known)}" if known else "there is nothing to set here"


def mapping(raw: Any, place: Place) -> Mapping[str, Any]:
    """Check that a value is a mapping with text keys.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(raw, Mapping):
        raise place.error(f"expected a mapping, got {show(raw)}")
    for key in raw:
        if not isinstance(key, str):
            raise place.error(f"expected text as a key, got {show(key)}; put it in quotes")
    return raw


def show(raw: Any) -> str:
    """A value as it appears in a message: short and on one line."""
    if raw is None:
        return "nothing"
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, list | tuple):
        text = "[" + ", ".join(show(item) for item in raw) + "]"
    else:
        text = repr(raw)
    return text if len(text) <= 60 else text[:57] + "..."


def counted(number: int, what: str) -> str:
    """A number of things, such as ``1 run`` or ``2 runs``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def describe(hint: Any) -> str:
    """What a type allows, in words, such as ``a number >= 0``."""
    hint, bounds = _unwrap(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        words = [describe(arm) for arm in arguments if _is_plain(arm)]
        return " or ".join(dict.fromkeys(words))
    if origin is Literal:
        return "one of " + ", ".join(str(argument) for argument in arguments)
    if origin in (dict, Mapping):
        return "a mapping"
    if origin is tuple and arguments[-1] is Ellipsis:
        if arguments[0] is Any:
            return "a list"
        return f"a list, each item {describe(arguments[0])}"
    if origin is tuple:
        words = list(dict.fromkeys(describe(argument) for argument in arguments))
        each = f"each {words[0]}" if len(words) == 1 else ", ".join(words)
        return f"a list of {len(arguments)}, {each}"
    names = {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "text",
        type(None): "none",
    }
    return names.get(hint, getattr(hint, "__name__", str(hint))) + _bounds(bounds)


def nesting(hint: Any) -> int:
    """How many lists a declared type has inside each other: 0 for a single value."""
    hint = _unwrap(hint)[0]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return max(map(nesting, arguments))
    if origin is tuple:
        return 1 + max(nesting(arm) for arm in arguments if arm is not Ellipsis)
    return 0


def _bounds(bounds: list[Any]) -> str:
    low = next((b for b in bounds if isinstance(b, Ge | Gt)), None)
    high = next((b for b in bounds if isinstance(b, Le | Lt)), None)
    if low and high:
        left = f"[{low.ge}" if isinstance(low, Ge) else f"({low.gt}"
        right = f"{high.le}]" if isinstance(high, Le) else f"{high.lt})"
        return f" in {left}, {right}"
    if low:
        return f" >= {low.ge}" if isinstance(low, Ge) else f" > {low.gt}"
    if high:
        return f" <= {high.le}" if isinstance(high, Le) else f" < {high.lt}"
    return ""


def _unwrap(hint: Any) -> tuple[Any, list[Any]]:
    """A type without its annotations, and the annotations."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, *extras = typing.get_args(hint)
        return inner, extras
    return hint, []


def _is_plain(hint: Any) -> bool:
    bare = _unwrap(hint)[0]
    return bare in (float, int, bool, str, type(None)) or typing.get_origin(bare) is not None


def _read(hint: Any, raw: Any) -> Any:
    """Read text as what the type calls for; what cannot be read is returned as it came."""
    hint = _unwrap(hint)[0]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (dict, Mapping) and isinstance(raw, str):
        return _yaml(raw)
    if hint == tuple[Any, ...] and isinstance(raw, list | tuple):
        read = [_yaml(item) if isinstance(item, str) else item for item in raw]
        return tuple(one for item in read for one in (item if isinstance(item, list) else [item]))
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, raw)
    if origin is tuple and isinstance(raw, list | tuple):
        if arguments[-1] is Ellipsis:
            return tuple(_read(arguments[0], item) for item in raw)
        if len(arguments) == len(raw):
            return tuple(_read(arm, item) for arm, item in zip(arguments, raw, strict=True))
        return raw
    if isinstance(raw, bool):
        return raw
    if hint is float and isinstance(raw, int | str):
        return _number(float, raw)
    if hint is int and isinstance(raw, float | str):
        whole = _number(int, raw) if isinstance(raw, str) else raw
        number = _number(float, whole)
        if isinstance(whole, int) or not isinstance(number, float):
            return whole
        return int(number) if number.is_integer() else raw
    if hint is bool and raw in ("true", "false"):
        return raw == "true"
    return raw


def _read_union(arms: tuple[Any, ...], raw: Any) -> Any:
    if str in arms and isinstance(raw, str):
        lists = any(typing.get_origin(arm) is tuple for arm in arms)
        return _yaml(raw) if lists and raw.startswith("[") else raw
    if type(None) in arms and raw in ("none", "null"):
        return None
    for arm in arms:
        value = _read(arm, raw)
        if value is not raw:
            return value
    return raw


class _NotYAML(Exception):
    """Text that begins as a list or a mapping in YAML's short form and is none."""


def _yaml(text: str) -> Any:
    """A mapping or a list that the command line gives as text; other text stays as it is."""
    if text.lstrip()[:1] not in ("{", "["):
        return text
    import yaml  # most commands do without

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _NotYAML(getattr(error, "problem", None) or "not YAML") from error


def _number(kind: type, raw: Any) -> Any:
    try:
        return kind(raw)
    except (ValueError, OverflowError):
        return raw


MAX_SEEDS = 10_000


def parse_seeds(raw: Any, place: Place) -> tuple[int, ...]:
    """Read seeds: ``"0-9"``, ``"0,2,5-7"``, 0 or 1 alone, or a list of whole numbers.

    Another number by itself may mean a seed, or how many.

    Raises:
        UsageError: another form, a range that is empty or runs backwards, a negative seed,
            a seed that is there twice, or a number that may be a seed or how many.
    """
    form = "expected seeds such as 0-9 or 0,2,5-7"
    number = str(raw)
    if number.isdecimal() and number.isascii() and int(number) > 1:
        alone = f"[{number}]" if place.source else f"{number}-{number}"
        raise place.error(
            f"{number} may be one seed or {number} seeds; write {alone} for the one, or "
            f"0-{int(number) - 1} for as many"
        )
    if isinstance(raw, int) and not isinstance(raw, bool):
        parts = [number]
    elif isinstance(raw, str):
        parts = raw.split(",")
    elif isinstance(raw, list) and raw:
        parts = [str(item) for item in raw]
    else:
        raise place.error(f"{form}, got {show(raw)}")
    seeds: list[int] = []
    for part in parts:
        seeds += _seed_range(part.strip(), raw, form, place)
    seen: set[int] = set()
    for seed in seeds:
        if seed in seen:
            raise place.error(f"seed {seed} is there twice in {show(raw)}")
        seen.add(seed)
    return tuple(seeds)


def _seed_range(part: str, raw: Any, form: str, place: Place) -> Sequence[int]:
    first, dash, last = part.partition("-")
    if not (first.isdecimal() and first.isascii()) or (
        dash and not (last.isdecimal() and last.isascii())
    ):
        raise place.error(f"{form}, got {show(raw)}")
    low, high = int(first), int(last or first)
    if high < low:
        raise place.error(f"the range {part} runs backwards; {form}")
    if high - low >= MAX_SEEDS:
        raise place.error(f"the range {part} holds more than {MAX_SEEDS:,} seeds")
    return range(low, high + 1)
