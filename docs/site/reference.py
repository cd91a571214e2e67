"""The pages of what users import, made from tables and `__all__`: classes, functions, metrics."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

from clrl.metrics.table import METRICS

FACES = (
    "clrl",
    "clrl.envs",
    "clrl.networks",
    "clrl.optim",
    "clrl.agents",
    "clrl.metrics",
    "clrl.testing",
)
"""What users import from, in the order of the site; what two of them have is of the first."""

FOLDER = "reference"


def pages() -> dict[str, str]:
    """File name to text: a page a face, a page a class, a page a metric."""
    made: dict[str, str] = {}
    homes: dict[int, str] = {}
    for face in FACES:
        made |= _face(face, homes)
    return made


def public(face: str) -> Iterator[tuple[str, object]]:
    """Names and objects of a face's `__all__`, in alphabetical order."""
    module = importlib.import_module(face)
    for name in sorted(module.__all__, key=str.casefold):
        yield name, getattr(module, name)


def _face(face: str, homes: dict[int, str]) -> dict[str, str]:
    """A face's page and those of its names; ``homes`` has the page of each object so far."""
    summaries = {entry.name: entry.summary for entry in METRICS}
    made, classes, functions, others = {}, [], [], []
    for name, item in public(face):
        if inspect.isclass(item) or (face == "clrl.metrics" and callable(item)):
            home = homes.setdefault(id(item), f"{face}.{name}")
            if home == f"{face}.{name}":
                made[f"{FOLDER}/{home}.md"] = _page(face, name, item, summaries.get(name, ""))
            classes.append((name, home, summaries.get(name) or _summary(item)))
        elif inspect.isfunction(item):
            functions.append(name)
        elif isinstance(item, str):
            others.append(f"- `{face}.{name}`: the version, as text.")
        else:
            others.append(f"- `{face}.{name}`: `{item}`")
    lines = [f"# {face}", "", *_rst([f".. automodule:: {face}"]), ""]
    what = "Metrics" if face == "clrl.metrics" else "Classes"
    if classes:
        lines += [f"## {what}", ""]
        lines += [f"- [{name}]({home}.md): {text}" for name, home, text in classes]
        lines += ["", "```{toctree}", ":hidden:", ""]
        lines += [f"{name} <{home}>" for name, home, _ in classes if f"{FOLDER}/{home}.md" in made]
        lines += ["```", ""]
    if functions:
        lines += ["## Functions", ""]
        for name in functions:
            lines += _rst([f".. autofunction:: {face}.{name}"])
            lines.append("")
    if others:
        lines += ["## Further names", "", *others, ""]
    return {f"{FOLDER}/{face}.md": "\n".join(lines), **made}


def _page(face: str, name: str, item: object, summary: str) -> str:
    if inspect.isclass(item):
        options = [f".. autoclass:: {face}.{name}", "   :members:"]
        if item.__bases__ != (object,):
            options.append("   :show-inheritance:")
    else:
        options = [f".. autofunction:: {face}.{name}"]
    lead = [summary[0].upper() + summary[1:] + ".", ""] if summary else []
    return "\n".join([f"# {name}", "", *lead, *_rst(options), ""])


def _rst(lines: list[str]) -> list[str]:
    return ["```{eval-rst}", *lines, "```"]


def _summary(item: object) -> str:
    """The first sentence of a docstring, as Markdown."""
    first = (inspect.getdoc(item) or "").partition("\n\n")[0]
    return " ".join(first.split()).replace("``", "`")
