"""Docstrings are plain text with backticks, lists and literal blocks; Sphinx reads reST."""

from __future__ import annotations

import re
from typing import Any

_ITEM = re.compile(r" *(?:\* )?")
_CODE = re.compile(r"(``.+?``|`[^`]+`)")


def plain(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Make ``*`` and ``|`` of a docstring stand for themselves, as in ``*shape`` and ``|w|``."""
    literal = None  # the indentation of the line that announced a literal block
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal is not None and line and indent <= literal:
            literal = None
        if literal is None:
            start = _ITEM.match(line)[0]  # type: ignore[index]
            parts = _CODE.split(line[len(start) :])
            parts[::2] = [re.sub(r"[*|]", r"\\\g<0>", part) for part in parts[::2]]
            lines[number] = start + "".join(parts)
            if line.endswith("::"):
                literal = indent
