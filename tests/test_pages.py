"""What README and docs say can be typed, and count, is so."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from clrl import suites
from clrl.agents.consolidation.table import CONSOLIDATION
from clrl.agents.optim.table import ADDONS, OPTIMIZERS
from clrl.agents.penalties.table import PENALTIES
from clrl.agents.table import AGENTS, NETWORKS
from clrl.benchmarks import BENCHMARKS
from clrl.cli.choices import read_run
from clrl.cli.main import SuiteArguments, _read
from clrl.registry import Table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TABLES: dict[str, list[Table]] = {
    "agent": [AGENTS],
    "benchmark": [BENCHMARKS],
    "network": [NETWORKS],
    "optimizer": [OPTIMIZERS, ADDONS],
    "addons": [ADDONS],
    "penalties": [PENALTIES],
    "consolidation": [CONSOLIDATION],
}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of every command that is written out."""
    for page in PAGES:
        text = page.read_text()
        found = re.findall(r"^ *(clrl (?:[^\n\\]|\\\n)*)$", text, re.M)
        found += re.findall(r"`(clrl [^`]+)`", text)
        for line in found:
            if re.match(r"clrl (run|suite)\b", line):
                words = shlex.split(re.sub(r"\\(\n|\|)", " ", line), comments=True)[1:]
                if words[1:2] not in (["..."], ["…"]):
                    yield page.name, [word for word in words if word not in ("...", "…")]


COMMANDS = [
    (page, words)
    for page, words in commands()
    if len(words) > 1
    and "--help" not in words
    and not any(re.search(r"^my_|_example|[A-Z]{4}|mine\.yaml|^\[", word) for word in words)
]


def test_the_pages_have_commands() -> None:
    assert len({page for page, _ in COMMANDS}) >= 6
    assert len(COMMANDS) >= 20


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[" ".join(c[1])[:60] for c in COMMANDS])
def test_a_command_is_understood(page: str, words: list[str]) -> None:
    kind, *rest = words
    if kind == "run":
        read_run(rest)
    else:
        suites.load(_read(SuiteArguments, rest, "suite").suite)


def test_options_that_the_pages_name_exist() -> None:
    known = {
        kind: {
            field.replace("_", "-")
            for table in tables
            for entry in table
            if not entry.name.startswith("sb3:")
            for field in entry.options_type().__dataclass_fields__
        }
        for kind, tables in TABLES.items()
    }
    known["agent"] |= {"n-steps"}  # Stable-Baselines3's
    known["optimizer"] |= {"base", "pull"}  # the latter of a page's own rule
    known["benchmark"] |= {"noise"}  # of a page's own stream
    for page in PAGES:
        named = re.findall(r"--(\w+)((?:\.[a-z][a-z-]*)+)(?![\w:.-])", page.read_text())
        for kind, path in named:
            if kind in known:
                assert path.rpartition(".")[2] in known[kind], f"{page.name}: --{kind}{path}"
