"""docs/presets.md has every setting of every preset beside its source's."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from clrl.settings import suite_files
from clrl.settings.config import resolve, to_dict
from clrl.settings.values import Place

PAGE = (Path(__file__).parents[1] / "docs" / "presets.md").read_text(encoding="utf-8")
HEADINGS = ["setting", "paper", "official code", "ours", "why"]
TEXTS = ("description", "source", "duration")


class Row(NamedTuple):
    """A row of a preset's table."""

    setting: str
    paper: str
    code: str
    ours: str
    why: str


def sections() -> dict[str, str]:
    """Preset to the text below its heading."""
    _, *parts = re.split(r"^## (.+)$", PAGE, flags=re.M)
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    return {name: text for name, text in found.items() if "| setting |" in text}


def table(name: str) -> dict[str, Row]:
    """Setting to row; the rows of a preset that this one is 'as … but' stand for it too."""
    text = sections()[name]
    base = re.search(r"^As \[([\w-]+)\]\(#[\w-]+\), but", text, re.M)
    rows = table(base[1]) if base else {}
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    cells = [[cell.strip("| ") for cell in row] for row in cells]
    assert cells[0] == HEADINGS, name
    own = [Row(*row) for row in cells[2:]]
    assert len({row.setting for row in own}) == len(own), f"{name}: a setting is there twice"
    for row in own:
        key = row.setting.strip("`")
        rows.pop(key, None)
        if row.ours != "–":
            rows[key] = row
    return rows


def plain(value: Any) -> Any:
    """Values as they count: 1e-3 is a number, though YAML takes it for text."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value


def at(content: Any, path: str) -> Any:
    """What stands at a dotted path; KeyError where nothing does. Labels may have dots."""
    if not path:
        return content
    for key in sorted(content if isinstance(content, Mapping) else (), key=len, reverse=True):
        if path == key or path.startswith(f"{key}."):
            return at(content[key], path[len(key) + 1 :])
    raise KeyError(path)


def drop(content: Any, path: str) -> None:
    """Take away what stands at a path."""
    for key in sorted(content if isinstance(content, Mapping) else (), key=len, reverse=True):
        if path == key:
            del content[key]
            return
        if path.startswith(f"{key}."):
            drop(content[key], path[len(key) + 1 :])
            return


def leaves(content: Any, path: str = "") -> Iterator[str]:
    """The paths of all that is no mapping."""
    if not isinstance(content, Mapping):
        yield path
        return
    for key, value in content.items():
        yield from leaves(value, f"{path}.{key}" if path else str(key))


def defaults(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the options of a preset's agent and network are where it says nothing."""
    names = {
        key: content[key]["name"]
        for key in ("agent", "network")
        if isinstance(content.get(key), Mapping)
    }
    return to_dict(resolve(names, Place()))


def problems(
    content: Mapping[str, Any], rows: Mapping[str, Row], unsaid: Mapping[str, Any]
) -> list[str]:
    """In what a preset's file and its table differ; `unsaid` are the defaults."""
    rest: dict[str, Any] = copy.deepcopy(
        {key: value for key, value in content.items() if key not in TEXTS}
    )
    agent = copy.deepcopy(rest.get("agent", {}))
    found = []
    for path, row in rows.items():
        try:
            value = at(content, path)
        except KeyError:
            try:
                value = at(unsaid, path)
            except KeyError:
                found.append(f"{path}: in the table alone")
                continue
        if plain(value) != plain(yaml.safe_load(row.ours.strip("`"))):
            found.append(f"{path}: {row.ours} in the table, {value} in the file")
        drop(rest, path)
    for learner in rest.get("learners", {}).values():
        for key, value in agent.items():  # what it takes over from the suite's agent
            if isinstance(learner.get("agent"), dict) and learner["agent"].get(key) == value:
                del learner["agent"][key]
    return [*found, *(f"{path}: in the file alone" for path in leaves(rest))]


def test_every_preset_has_a_table() -> None:
    assert list(sections()) == suite_files.names()


@pytest.mark.parametrize("name", suite_files.names())
def test_a_preset_is_what_its_table_says(name: str) -> None:
    _, content = suite_files.read(name)
    assert problems(content, table(name), defaults(content)) == []


@pytest.mark.parametrize("name", suite_files.names())
def test_what_differs_from_a_source_has_a_reason(name: str) -> None:
    """In the cells of sources ``=`` is "the same", and ``–`` that there is nothing to compare."""
    for row in table(name).values():
        assert row.paper and row.code and row.ours, row
        same = row.paper in ("=", "–") and row.code in ("=", "–")
        assert same or row.why, f"{name}: {row.setting} differs, and why is empty"


@pytest.mark.parametrize("name", suite_files.names())
def test_no_setting_can_change_without_its_table(name: str) -> None:
    """Nor can a row go, nor a setting be added."""
    _, content = suite_files.read(name)
    rows, unsaid = table(name), defaults(content)
    for path in leaves({key: value for key, value in content.items() if key not in TEXTS}):
        changed = copy.deepcopy(dict(content))
        parent, key = changed, path
        while key not in parent:
            first = max((one for one in parent if key.startswith(f"{one}.")), key=len)
            parent, key = parent[first], key[len(first) + 1 :]
        parent[key] = "other"
        assert problems(changed, rows, unsaid), path
    for path in rows:
        less = {key: row for key, row in rows.items() if key != path}
        said = next((True for one in leaves(content) if f"{one}.".startswith(f"{path}.")), False)
        assert problems(content, less, unsaid) or not said, path
    assert problems({**content, "chunk_size": 1}, rows, unsaid)
