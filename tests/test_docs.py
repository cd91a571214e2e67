"""The Python of README and docs/environments.md runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(text: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def run(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    subprocess.run([sys.executable, "-P", "-"], cwd=folder, input=source, text=True, check=True)


def test_readme_makes_and_plots_a_changing_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = re.search(
        r"^## A world that changes$(.*?)^## ", (ROOT / "README.md").read_text(), re.DOTALL | re.M
    )
    assert section is not None
    run(blocks(section[1]), tmp_path, monkeypatch)
    assert (tmp_path / "offset-cartpole.png").read_bytes().startswith(b"\x89PNG")


def test_environments_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(blocks((ROOT / "docs" / "environments.md").read_text()), tmp_path, monkeypatch)


def test_ppo_page_plots_the_short_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["suite", "offset-cartpole-short", "--steps", "1600", "--seeds", "0-1"]
    start = "import sys, clrl.cli; sys.exit(clrl.cli.main())"
    subprocess.run([sys.executable, "-P", "-c", start, *words], cwd=tmp_path, check=True)
    run(blocks((ROOT / "docs" / "ppo.md").read_text()), tmp_path, monkeypatch)
    assert (tmp_path / "offset-cartpole-returns.png").read_bytes().startswith(b"\x89PNG")
