"""Tables of named things, with plug-ins beside them.

Each room of the package lists what it offers in one `Table`: a name, one line of
text, where the object is, and where its options are described. The tables are data and
import nothing heavy, so that listing them is quick. Wherever a table's name is accepted,
``package.module:Name`` is accepted too, and so are the names that installed packages
publish under the table's entry-point group.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import importlib
import importlib.metadata
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from clrl.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Entry:
    """One named thing.

    Attributes:
        name: what users type.
        summary: one line for listings.
        target: ``"package.module:Name"`` of the object itself.
        options: ``"package.module:Name"`` of the frozen dataclass that owns the
            options and their defaults; empty where the target's own signature does.
        source: ``"built in"`` or the distribution that published the entry.
    """

    name: str
    summary: str
    target: str
    options: str = ""
    source: str = "built in"

    def load(self) -> Any:
        """Import and return the object itself."""
        return import_target(self.target, self.name)

    def options_type(self) -> type:
        """The frozen dataclass that describes the options; see `options_type_of`."""
        if self.options:
            return typing.cast(type, import_target(self.options, self.name))
        return options_type_of(self.load())


_REFUSED: ContextVar[str] = ContextVar("_REFUSED", default="")


@contextlib.contextmanager
def plug_ins_refused(reason: str) -> Iterator[None]:
    """Inside, ``package.module:Name`` is a mistake, for this reason; nothing is imported."""
    token = _REFUSED.set(reason)
    try:
        yield
    finally:
        _REFUSED.reset(token)


@functools.cache
def _published(path: tuple[str, ...]) -> Any:  # its type has another name before Python 3.12
    """What the distributions on a path publish; read once, since it is a file of each of them."""
    return importlib.metadata.entry_points()


def check_trusted(name: str, where: str = "") -> None:
    """Refuse a name with a module in it where plug-ins are refused.

    Raises:
        UsageError: they are.
    """
    if _REFUSED.get():
        raise UsageError(f"{f'{where}: ' if where else ''}{name!r}: {_REFUSED.get()}")


class Table:
    """Everything of one kind that can be named.

    Args:
        kind: singular word for messages, such as ``"optimizer"``.
        entries: what the project itself offers, in the order to be listed.
        group: entry-point group for installed plug-ins, such as ``"clrl.optimizers"``;
            empty for none.
    """

    def __init__(self, kind: str, entries: list[Entry], group: str = "") -> None:
        self.kind = kind
        self.group = group
        self._built_in = {entry.name: entry for entry in entries}

    def __iter__(self) -> Iterator[Entry]:
        """All entries: the built-in ones, then installed plug-ins."""
        yield from self._built_in.values()
        yield from self._installed().values()

    def __contains__(self, name: str) -> bool:
        """Whether there is an entry of exactly this name."""
        return name in self._built_in or name in self._installed()

    def _installed(self) -> dict[str, Entry]:
        if not self.group:
            return {}
        return {
            point.name: Entry(
                name=point.name,
                summary=f"plug-in: {point.value}",
                target=point.value,
                source=point.dist.name if point.dist else "plug-in",
            )
            for point in _published(tuple(sys.path)).select(group=self.group)
            if point.name not in self._built_in
        }

    def find(self, name: str, where: str = "") -> Entry:
        """Look a name up.

        Args:
            name: a built-in name, a plug-in's name, or ``package.module:Name``. Built-in names
                may be written in capitals, and with underscores.
            where: prefix for the error message, such as ``"suite.yaml: learners.a"``.

        Raises:
            UsageError: no such name; the message gives the nearest match.
        """
        if name in self._built_in:
            return self._built_in[name]
        alike = [own for own in self._built_in if _spelling(own) == _spelling(name)]
        if alike:
            return self._built_in[alike[0]]
        if ":" in name:
            check_trusted(name, where)
            return Entry(name=name, summary="plug-in", target=name, source="plug-in")
        installed = self._installed()
        if name in installed:
            return installed[name]
        known = {_spelling(own): own for own in (*self._built_in, *installed)}
        near = difflib.get_close_matches(_spelling(name), known, n=1, cutoff=0.5)
        rest = f"expected one of {', '.join(known.values())}"
        hint = f"did you mean {known[near[0]]!r}?" if near else rest
        prefix = f"{where}: " if where else ""
        raise UsageError(f"{prefix}unknown {self.kind} {name!r}; {hint}")


def importable(cls: type) -> str:
    """``package.module:Name`` of a class.

    Raises:
        UsageError: it cannot be imported by that name.
    """
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise UsageError(
            f"{cls.__qualname__}: expected a class that a module holds, so that others can import "
            f"it, got one of {cls.__module__}"
        )
    return f"{cls.__module__}:{cls.__qualname__}"


def _spelling(name: str) -> str:
    """What names have in common that differ in capitals and underscores alone."""
    return name.casefold().replace("_", "-")


def import_target(target: str, name: str) -> Any:
    """Import ``package.module:Name``, also from the current directory.

    Raises:
        UsageError: the text has another form, or the module or name is not there.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"{name!r}: expected package.module:Name")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{name!r}: cannot import {module_name!r}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{name!r}: module {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    return found


def options_type_of(target: Callable[..., Any]) -> type:
    """The dataclass that describes a plug-in's options.

    It is the plug-in's attribute ``Options``, or the plug-in itself where that is a dataclass (a
    control benchmark); without either, its own signature says.
    """
    for own in (getattr(target, "Options", None), target):
        if isinstance(own, type) and dataclasses.is_dataclass(own):
            return own
    return options_from_signature(target)


_PLAIN = (bool, int, float, str)


class Untyped:
    """The type of an option whose signature names none and whose default, None, tells none."""


def options_from_signature(target: Callable[..., Any], skip: int = 1) -> type:
    """Describe a callable's keyword options as a frozen dataclass.

    The first parameter (the parameters of an optimizer, the seed of a stream) is
    skipped, and so is every parameter whose type is neither written down nor to be read
    off its default: such options can be set in code only. Where the default is None, the type is
    `Untyped`, so that who sets it is told. A whole number as a default allows any number.

    Args:
        target: a class or function, for instance a ``torch.optim.Optimizer`` subclass.
        skip: how many parameters come before the options.

    Returns:
        A frozen dataclass type with one field an option; options without a default are
        required.
    """
    parameters = list(inspect.signature(target).parameters.values())[skip:]
    callable_ = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(callable_, include_extras=True)
    except (NameError, TypeError):  # annotations that only a type checker can resolve
        hints = {}
    fields: list[tuple[str, Any, Any]] = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint = _plain_type(hints.get(parameter.name), parameter.default)
        if hint is None:
            continue
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, hint, dataclasses.field()))
        else:
            fields.append((parameter.name, hint, dataclasses.field(default=parameter.default)))
    fields.sort(key=lambda item: item[2].default is not dataclasses.MISSING)
    name = getattr(target, "__name__", "Plugin") + "Options"
    return dataclasses.make_dataclass(name, fields, frozen=True)


def _plain_type(hint: Any, default: Any) -> Any:
    """The type to validate an option with, or None where there is none."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        arms = [arm for arm in typing.get_args(hint) if arm in (*_PLAIN, type(None))]
        if not any(arm in _PLAIN for arm in arms):
            return None
        return typing.Union[tuple(arms)]  # noqa: UP007 - built from values
    if hint in _PLAIN or origin in (tuple, typing.Literal, typing.Annotated):
        return hint
    if hint is None and default is None:
        return Untyped
    if hint is None and isinstance(default, tuple) and default:
        items = [_plain_type(None, item) for item in default]
        return tuple[tuple(items)] if all(items) and Untyped not in items else None  # type: ignore[misc]
    if hint is None and type(default) is int:
        return int | float
    if hint is None and isinstance(default, _PLAIN):
        return type(default)
    return None
