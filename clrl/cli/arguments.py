"""Reads a command line into plain text values, by way of frozen dataclasses and tyro.

A dataclass says which options there are, of what type, with what default and what help.
tyro reads the command line and prints the help; values stay text here and are checked by
`clrl.settings.values`, so that a mistake reads the same from the command line and from YAML.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from clrl.errors import UsageError
from clrl.settings.values import suggestion

_OPTION = re.compile(r"--?[A-Za-z]")


class Given(str):
    """Text from the command line, as opposed to a default."""


_REQUIRED = object()
"""The default of an option that has none."""


def parse(spec: type, argv: Sequence[str], prog: str) -> dict[str, Any]:
    """Read a command line.

    Args:
        spec: a frozen dataclass. A field's metadata may hold ``metavar`` (what help
            shows for the value), ``positional`` (True) and, for a field that is itself a
            dataclass, ``prefix`` (the name in front of its options, the field's name
            unless given) and ``sweeps`` (True: several values of an option are as many settings).
            A boolean field with ``switch`` (True) takes no value.
        argv: the arguments.
        prog: the command as help shows it.

    Returns:
        Field name to value (text, a list of text, True, or such a mapping for a
        dataclass), for everything that the command line gives.

    Raises:
        UsageError: an unknown option, or one without its value.
        SystemExit: help was asked for, and printed.
    """
    _refuse_unknown(spec, argv)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed, rest = tyro.cli(
                _readable(spec),
                prog=prog,
                args=list(argv),
                return_unknown_args=True,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(_one_line(said.getvalue())) from None
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}; see {prog} --help")
    given = _given(parsed)
    for field in dataclasses.fields(spec):
        missing = field.default is dataclasses.MISSING and field.name not in given
        if missing and field.metadata.get("positional"):
            raise UsageError(f"{prog}: expected {field.metadata['metavar']}; see {prog} --help")
    return given


def _readable(spec: type, sweeps: bool = False) -> Any:
    """The same dataclass for tyro: every value is text, or several where options may sweep."""
    hints = typing.get_type_hints(spec, include_extras=True)
    documented = attribute_help(spec)
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(spec):
        hint = hints[field.name]
        text = documented.get(field.name, "")
        if dataclasses.is_dataclass(hint):
            inner = _readable(typing.cast(type, hint), sweeps or bool(field.metadata.get("sweeps")))
            prefix = tyro.conf.arg(name=field.metadata.get("prefix", field.name))
            fields.append(
                (
                    field.name,
                    typing.Annotated[inner, prefix],
                    dataclasses.field(default_factory=inner),
                )
            )
            continue
        required = field.default is dataclasses.MISSING
        default = _REQUIRED if required else field.default
        shown = "(required)" if required else None if default not in (None, ()) else ""
        described = tyro.conf.arg(help=text, help_behavior_hint=shown)
        as_typed: Any = typing.Annotated[object, described, _reader(hint, field, sweeps)]
        if field.metadata.get("switch"):
            as_typed = typing.Annotated[bool, tyro.conf.arg(help=text, help_behavior_hint="")]
        if field.metadata.get("positional"):
            as_typed = typing.Annotated[as_typed, tyro.conf.Positional]
        fields.append((field.name, as_typed, dataclasses.field(default=default)))
    made = dataclasses.make_dataclass(spec.__name__, fields, frozen=True)
    text = inspect.cleandoc(spec.__doc__ or "").split("\n\n")[0]
    made.__doc__ = "" if text.startswith(f"{spec.__name__}(") else text  # made by dataclasses
    return made


def _reader(
    hint: Any, field: dataclasses.Field[Any], sweeps: bool
) -> PrimitiveConstructorSpec[Any]:
    metavar = field.metadata.get("metavar") or _metavar(hint)
    if _bare_origin(hint) is tuple:
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar=metavar,
            instance_from_str=lambda texts: [Given(text) for text in texts],
            is_instance=lambda value: True,
            str_from_instance=lambda value: [str(item) for item in value],
        )
    return PrimitiveConstructorSpec(
        nargs="*" if sweeps else 1,
        metavar=metavar,
        instance_from_str=lambda texts: Given(texts[0]) if len(texts) == 1 else [*texts],
        is_instance=lambda value: True,
        str_from_instance=lambda value: [_as_written(value)],
    )


def _as_written(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _bare_origin(hint: Any) -> Any:
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    return typing.get_origin(hint)


def _metavar(hint: Any) -> str:
    """What help shows in place of a value: its type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _metavar(arguments[0])
    if origin is Literal:
        return "{" + ",".join(str(argument) for argument in arguments) + "}"
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"{_metavar(arguments[0])} ..."
        return " ".join(_metavar(argument) for argument in arguments)
    if origin is not None:
        names = [_metavar(argument) for argument in arguments]
        return "|".join(dict.fromkeys(name for name in names if name))
    names_of = {float: "NUMBER", int: "WHOLE", bool: "{true,false}", str: "TEXT"}
    return names_of.get(hint, "none" if hint is type(None) else "")


def attribute_help(spec: type, heading: str = "Attributes") -> dict[str, str]:
    """The ``Attributes:`` (or ``Args:``) sections of a class and its bases: name to text."""
    found: dict[str, str] = {}
    for base in reversed(spec.__mro__[:-1]):
        found |= _section(base.__doc__ or "", heading)
    return found


def _section(docstring: str, heading: str) -> dict[str, str]:
    _, _, section = inspect.cleandoc(docstring).partition(f"{heading}:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        start = re.fullmatch(r"    (\w+): (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif name and line.startswith("     "):
            found[name] += " " + line.strip()
        else:
            name = ""
    return {name: text.replace("``", "") for name, text in found.items()}


def flags(spec: type, prefix: str = "--") -> Iterator[tuple[str, bool]]:
    """Every option of a dataclass as it is typed, and whether it takes values."""
    hints = typing.get_type_hints(spec, include_extras=True)
    for field in dataclasses.fields(spec):
        name = field.metadata.get("prefix", field.name).replace("_", "-")
        if dataclasses.is_dataclass(hints[field.name]):
            yield from flags(typing.cast(type, hints[field.name]), f"{prefix}{name}.")
        elif not field.metadata.get("positional"):
            yield prefix + name, not field.metadata.get("switch")


def _refuse_unknown(spec: type, argv: Sequence[str]) -> None:
    """Refuse an option that is not there, or that has no value where it needs one."""
    takes_value = dict(flags(spec))
    for argument, following in zip(argv, [*argv[1:], "--"], strict=False):
        typed, equals, _ = argument.partition("=")
        if not _OPTION.match(typed) or typed in ("-h", "--help"):
            continue
        flag = typed.replace("_", "-")
        if flag not in takes_value:
            raise UsageError(f"unknown option {typed}; {_meant(flag, [*takes_value, '--help'])}")
        if takes_value[flag] and not equals and (following == "--" or _OPTION.match(following)):
            raise UsageError(f"{typed}: expected a value, got nothing")


ELSEWHERE = {
    "benchmark": ("env", "env-id", "environment", "task", "dataset", "stream"),
    "agent": ("algo", "algorithm"),
    "steps": ("total-timesteps", "timesteps", "n-timesteps", "total-steps", "num-steps"),
    "seeds": ("seed",),
    "optimizer.lr": ("learning-rate",),
    "optimizer": ("optim", "optimiser"),
    "out": ("output", "log-dir", "logdir", "log-folder", "output-dir"),
    "benchmarks": ("envs",),
    "device": ("gpu", "cuda"),
    "learners": ("learner", "algos"),
}
"""Our options, and what other programs call them."""


def _meant(flag: str, known: list[str]) -> str:
    """What to type in place of an option that is not there."""
    word = flag.removeprefix("--")
    also = [f"--{ours}" for ours, theirs in ELSEWHERE.items() if word in theirs]
    inner = [one for one in known if one.endswith(f".{word}")]
    for found in (also, inner):
        fitting = [one for one in found if one in known]
        if fitting:
            return f"did you mean {' or '.join(map(repr, fitting))}?"
    return suggestion(flag, known)


def _given(parsed: Any) -> dict[str, Any]:
    """What was on the command line, out of what tyro returns."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(parsed):
        value = getattr(parsed, field.name)
        if dataclasses.is_dataclass(value):
            inner = _given(value)
            if inner:
                found[field.name] = inner
        elif isinstance(value, Given):
            found[field.name] = str(value)
        elif isinstance(value, list):
            found[field.name] = [str(item) for item in value]
        elif value is True and field.default is False:
            found[field.name] = True
    return found


def _one_line(box: str) -> str:
    """Tyro's boxed message as one line, without its title and footer."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    body = [line.strip("│ ") for line in text.splitlines() if line.startswith("│")]
    lines = []
    for line in body:
        if set(line) <= {"─"}:
            break
        lines.append(line)
    return " ".join(" ".join(lines).split()) or "the command line cannot be read"


def values_after(argv: Sequence[str], flag: str) -> list[str]:
    """The values that follow an option, as ``flag a b`` or ``flag=a``; the last one wins."""
    found: list[str] = []
    reading = False
    for argument in argv:
        typed, equals, value = argument.partition("=")
        if typed.replace("_", "-") == flag:
            found = [value] if equals else []
            reading = not equals
        elif argument.startswith("-"):
            reading = False
        elif reading:
            found.append(argument)
    return found
