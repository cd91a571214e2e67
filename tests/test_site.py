"""The site has a page for all that users import, and its links are looked at."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from clrl.metrics.table import METRICS

SITE = Path(__file__).parents[1] / "docs" / "site"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The folder's modules, by name."""
    monkeypatch.syspath_prepend(str(SITE))
    names = ("reference", "links", "docstrings")
    found = ModuleType("site")
    for name in names:
        setattr(found, name, importlib.import_module(name))
    yield found
    for name in names:
        del sys.modules[name]


def test_every_public_class_and_metric_has_a_page(site: ModuleType) -> None:
    pages = site.reference.pages()
    for face in site.reference.FACES:
        assert f"reference/{face}.md" in pages
    # A class in two faces has its page with the first.
    for name in ("clrl.envs.NonStationary", "clrl.optim.UPGD", "clrl.networks.MLPOptions"):
        assert f".. autoclass:: {name}\n" in pages[f"reference/{name}.md"]
    assert "reference/clrl.agents.MLPOptions.md" not in pages
    assert "(clrl.networks.MLPOptions.md)" in pages["reference/clrl.agents.md"]
    for entry in METRICS:
        assert entry.summary[1:] in pages[f"reference/clrl.metrics.{entry.name}.md"]
    texts = "\n".join(pages.values())
    for face in site.reference.FACES:
        module = importlib.import_module(face)
        for name in module.__all__:
            item = getattr(module, name)
            kind = "class" if inspect.isclass(item) else "function"
            if inspect.isclass(item) or inspect.isfunction(item):
                homes = [one for one in site.reference.FACES if hasattr_of(one, name, item)]
                assert any(f"auto{kind}:: {one}.{name}\n" in texts for one in homes), name


def hasattr_of(face: str, name: str, item: object) -> bool:
    module = importlib.import_module(face)
    return name in module.__all__ and getattr(module, name) is item


def test_the_faces_are_those_that_users_import_from(site: ModuleType) -> None:
    path = Path(__file__).parent / "test_faces.py"
    spec = importlib.util.spec_from_file_location("faces", path)
    assert spec is not None and spec.loader is not None
    faces = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(faces)
    assert sorted(site.reference.FACES) == sorted(faces.FACES)


def test_links_that_lead_nowhere_are_named(site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="#top">1</a><a href="#gone">2</a><a href="in/b.html#x">3</a>'
        '<a href="in/b.html#y">4</a><img src="no.png"><a href="https://example.org/#z">5</a>'
    )
    (tmp_path / "in" / "b.html").write_text('<p id="x"><a href="../a.html">1</a></p>')
    assert site.links.dead(tmp_path) == [
        "a.html: no anchor #gone",
        "a.html: no anchor in/b.html#y",
        "a.html: no file no.png",
    ]


def test_docstrings_are_plain_text(site: ModuleType) -> None:
    lines = ["* of |w| and `*args`::", "", "    a * b", "", "so *shape"]
    site.docstrings.plain(None, "", "", None, None, lines)
    assert lines == ["* of \\|w\\| and `*args`::", "", "    a * b", "", "so \\*shape"]
