"""Builds the site: ``python docs/site/build.py`` writes ``build/site/html``.

The pages are staged as they lie in the checkout, so that links between them hold here as on a code
host; pages of what users import are made from tables and docstrings. Warnings are errors, and
links that lead nowhere are as well.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import reference
from links import dead
from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"

GUIDE = (
    "cli", "python", "streams", "environments", "ppo", "forgetting", "metrics", "methods",
    "your-optimizer", "testing", "report", "presets", "coming-from", "speed", "scaling",
    "platforms", "decisions",
)  # fmt: skip
"""The pages of docs/, in the order of the site."""

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)(#[^)]*)?\)")


def main() -> int:
    """Build the site.

    Returns:
        The exit status: 1 where something is wrong.
    """
    # Anew each time: what is kept from a build with warnings would not warn again.
    shutil.rmtree(SITE, ignore_errors=True)
    source, html = SITE / "source", SITE / "html"
    stage(ROOT, source)
    here = str(Path(__file__).parent)
    words = ["-q", "-W", "--keep-going", "-b", "html", "-c", here, "-d", str(SITE / "doctrees")]
    if sphinx([*words, str(source), str(html)]):
        return 1
    problems = dead(html)
    print("\n".join(problems) or f"{html.relative_to(ROOT)}/index.html", flush=True)
    return bool(problems)


def stage(root: Path, folder: Path) -> None:
    """Lay out the pages, and what they show and link to."""
    pages = {f"docs/{path.name}" for path in (root / "docs").glob("*.md")}
    listed = {f"docs/{name}.md" for name in GUIDE}
    if pages != listed:
        raise SystemExit(f"docs/site/build.py: GUIDE and docs/ differ: {sorted(pages ^ listed)}")
    gallery = sorted((root / "docs" / "gallery").glob("*-*.md"))
    kinds = {kind: [one.stem for one in gallery if one.stem.startswith(kind)]
             for kind in ("method", "benchmark")}  # fmt: skip
    texts = {
        name: (root / name).read_text(encoding="utf-8")
        for name in ("CHANGELOG.md", "CONTRIBUTING.md", *sorted(pages))
    }
    texts |= {f"docs/gallery/{one.name}": one.read_text(encoding="utf-8") for one in gallery}
    texts["index.md"] = "\n".join([
        (root / "README.md").read_text(encoding="utf-8"),
        _toctree("Guide", [f"docs/{name}" for name in GUIDE]),
        _toctree("Gallery", ["Overview <docs/gallery/README>"]),
        _toctree("Reference", [f"{reference.FOLDER}/{face}" for face in reference.FACES]),
        _toctree("Project", ["CHANGELOG", "CONTRIBUTING"]),
    ])  # fmt: skip
    overview = (root / "docs" / "gallery" / "README.md").read_text(encoding="utf-8")
    trees = [_toctree(kind.capitalize() + "s", names) for kind, names in kinds.items()]
    texts["docs/gallery/README.md"] = "\n".join([overview, *trees])
    texts |= reference.pages()
    files = {
        str(path.relative_to(root)): path.read_bytes() for path in (root / "docs").rglob("*.png")
    }
    for name, text in texts.items():
        staged = LINK.sub(lambda found, name=name: _link(root, name, found, texts, files), text)
        files[name] = staged.encode()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _link(
    root: Path, name: str, found: re.Match[str], texts: Mapping[str, str], files: dict[str, bytes]
) -> str:
    """A link as the site can have it: files come along, folders are named without a link."""
    target = (root / name).parent / found[2]
    within = target.resolve().relative_to(root.resolve()).as_posix() if target.exists() else ""
    if not within or within in texts:
        return found[0]
    if target.is_dir():
        return found[1]
    files[within] = target.read_bytes()
    return found[0]


def _toctree(caption: str, names: Sequence[str]) -> str:
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *names, "```"])


if __name__ == "__main__":
    sys.exit(main())
