"""``clrl show``: what would be run, every setting of it, and where each came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clrl.launch.progress import seeds_text
from clrl.settings.origins import Origins
from clrl.suites import Suite

_INDENT = "  "


def lines_of_run(found: Origins, suite: Suite, out: str) -> Iterator[str]:
    """What ``clrl run`` would do, an option a line; of a sweep, the first setting's."""
    yield from _table(found)
    (benchmark,) = suite.benchmarks
    yield f"into {out}/{benchmark}/: {', '.join(suite.learners)}; {seeds_text(suite.seeds)}"


def lines_of_suite(suite: Suite) -> Iterator[str]:
    """What ``clrl suite`` would do: what all learners share, then what each has of its own."""
    for label, choice in suite.benchmarks.items():
        yield f"benchmark {label}: {choice.name}"
        yield from _rows((key, value, "") for key, value in vars(choice.options).items())
    learners = {
        label: {key: row for key, row in found.items() if not key.startswith("benchmark")}
        for label, found in suite.origins.items()
    }
    every = list(learners.values())
    shared = {
        key: row for key, row in every[0].items() if all(found.get(key) == row for found in every)
    }
    yield "every learner:" if len(every) > 1 else f"learner {next(iter(learners))}:"
    yield from _table(shared, _INDENT)
    for label, found in learners.items():
        own = {key: row for key, row in found.items() if key not in shared}
        if own:
            only = ", ".join(suite.only.get(label, ()))
            yield f"learner {label}{f', on {only} alone' if only else ''}:"
            yield from _table(own, _INDENT)
    yield f"{seeds_text(suite.seeds)}"


def _table(found: Origins, indent: str = "") -> Iterator[str]:
    yield from _rows(((key, value, source) for key, (value, source) in found.items()), indent)


def _rows(rows: Any, indent: str = _INDENT) -> Iterator[str]:
    listed = [(key, _text(value), source) for key, value, source in rows]
    wide = max((len(key) for key, *_ in listed), default=0)
    long = max((len(value) for _, value, _ in listed), default=0)
    for key, value, source in listed:
        yield f"{indent}{key:<{wide}}  {value:<{long}}  {source}".rstrip()


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return str(value)
