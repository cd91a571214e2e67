"""What README and docs tell to do works as it stands there."""

import functools
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient import NotebookClient

from clrl import suites
from clrl.agents.consolidation.table import CONSOLIDATION
from clrl.agents.optim.table import ADDONS, OPTIMIZERS
from clrl.agents.penalties.table import PENALTIES
from clrl.benchmarks import BENCHMARKS

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


@pytest.mark.slow
def test_environments_page_trains_on_a_world_of_ones_own(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "environments.md").read_text()
    (suite,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(suite)
    (command,) = re.findall(r"```sh\nclrl (.*?)\n```", text, re.DOTALL)
    start = "import sys; from clrl.cli.main import main; sys.exit(main())"
    for words in (["suite", "mine.yaml"], shlex.split(command)):
        line = [sys.executable, "-P", "-c", start, *words, "--steps", "2048", "--workers", "1"]
        subprocess.run(line, cwd=tmp_path, check=True)
    assert list(tmp_path.glob("runs/mine/changing/adam/seed-0/metrics.jsonl"))
    assert list(tmp_path.glob("runs/changing/changing/*/seed-0/metrics.jsonl"))


def test_methods_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(blocks((ROOT / "docs" / "methods.md").read_text()), tmp_path, monkeypatch)


@pytest.mark.slow
def test_what_the_methods_page_shows_keeps_its_contracts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    heads = ("## On an ordinary module", "## Penalties", "## In a population")
    first, middle = (text.index(head) for head in heads[:2])
    source = "import torch\n" + blocks(text[:first] + text[middle : text.index(heads[2])])
    (tmp_path / "my_methods.py").write_text(source)
    checks = """
from clrl.testing import check_addon, check_agent, check_network, check_penalty, check_unit_reset
from my_methods import *
check_addon(WeightClipping, bound=0.5, neutral={"bound": 1e9}, steps=12)
check_addon(DownhillOnly, steps=12)
check_unit_reset(ReDo, threshold=0.8, every=5, neutral={"threshold": -1.0}, steps=12)
check_penalty(SlowWeights, strength=0.1, neutral={"strength": 0.0}, steps=12)
check_network(OneLayer, width=16, steps=12)
check_agent("supervised", run={"consolidation": ["my_methods:Anchor"]})
"""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run(checks, tmp_path, monkeypatch)


@pytest.mark.slow
def test_python_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = blocks((ROOT / "docs" / "python.md").read_text())
    assert source.count("20_000") == source.count("steps=6000") == 1
    # A few updates in place of the lengths that a reader would like to see.
    source = source.replace("20_000", "4096").replace("steps=6000", "steps=1500")
    run(source, tmp_path, monkeypatch)
    assert (tmp_path / "runs" / "q" / "suite.yaml").is_file()


@pytest.mark.slow
def test_first_steps_run_in_a_notebook(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "docs" / "first-steps.ipynb", as_version=4)
    nbformat.validate(notebook)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=None, resources=resources).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) == 6 and code[0].source.startswith("import clrl\n")
    assert float(code[-1].outputs[0].text.removeprefix("return ")) >= 8  # no pole falls sooner
    assert (tmp_path / "runs" / "q" / "suite.yaml").is_file()


@pytest.mark.slow
def test_testing_page_checks_an_optimizer(tmp_path: Path) -> None:
    source = blocks((ROOT / "docs" / "testing.md").read_text())
    (tmp_path / "check_mine.py").write_text(source)
    words = [sys.executable, "check_mine.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "members independent" in done.stdout and "stacked" in done.stdout


def test_pages_import_from_faces_alone() -> None:
    faces = {"agents", "envs", "metrics", "networks", "optim", "testing"}
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for _, block in re.findall(r"```(python)\n(.*?)```", page.read_text(), re.DOTALL):
            for name in re.findall(r"^\s*(?:from|import) clrl\.(\S+)", block, re.M):
                assert name in faces, f"{page.name} imports clrl.{name}"


@pytest.mark.slow
def test_ppo_page_plots_the_short_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["suite", "offset-cartpole-short", "--steps", "1600", "--seeds", "0-1"]
    start = "import sys; from clrl.cli.main import main; sys.exit(main())"
    subprocess.run([sys.executable, "-P", "-c", start, *words], cwd=tmp_path, check=True)
    run(blocks((ROOT / "docs" / "ppo.md").read_text()), tmp_path, monkeypatch)
    assert (tmp_path / "offset-cartpole-returns.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_your_optimizer_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "your-optimizer.md").read_text()
    found = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    assert [kind for kind, _ in found] == ["python", "sh", "yaml", "sh", "sh", "python"]
    for _, block in found:
        named = re.match(r"# (\S+\.\w+)\n", block)
        if named:
            (tmp_path / named[1]).write_text(block)
    start = "import sys; from clrl.cli.main import main; sys.exit(main())"
    for kind, block in found:
        if kind == "sh":
            words = shlex.split(block)
            assert words.pop(0) == "clrl"
            if words[0] == "suite":  # two tasks and two seeds in place of thirty and five
                words += ["--steps", "3000", "--seeds", "0-1"]
            subprocess.run([sys.executable, "-c", start, *words], cwd=tmp_path, check=True)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    done = subprocess.run(
        [sys.executable, "-P", "-"],
        cwd=tmp_path,
        input=found[-1][1],
        text=True,
        check=True,
        capture_output=True,
    )
    lines = done.stdout.splitlines()
    assert sorted(line.split()[0] for line in lines) == [
        "adam",
        "anchored-adam",
        "continual-backprop",
    ]
    assert all("accuracy" in line and "loss of plasticity" in line for line in lines)


@functools.cache
def gallery_script() -> ModuleType:
    path = ROOT / "docs" / "gallery.py"
    spec = importlib.util.spec_from_file_location("gallery", path)
    assert spec is not None and spec.loader is not None
    gallery = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gallery)
    return gallery


def test_the_gallery_is_what_the_sources_say() -> None:
    gallery = gallery_script()
    folder = ROOT / "docs" / "gallery"
    outcomes = json.loads((folder / "outcomes.json").read_text())
    pages = gallery.pages(outcomes)
    for name, text in pages.items():
        assert (folder / name).read_text() == text, f"{name} is out of date: run make gallery"
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert target in pages or (folder / target).is_file(), f"{name}: no {target}"
    readme = (ROOT / "README.md").read_text()
    assert gallery.counted(readme) == readme, "README's counts are out of date: run make gallery"
    there = {file.name for file in folder.glob("*.md")}
    assert there == pages.keys()


def test_every_page_of_the_gallery_has_a_picture() -> None:
    folder = ROOT / "docs" / "gallery"
    kinds = {
        "method": (OPTIMIZERS, ADDONS, PENALTIES, CONSOLIDATION),
        "benchmark": (BENCHMARKS,),
    }
    for kind, tables in kinds.items():
        names = [one.name for table in tables for one in table if one.source == "built in"]
        shown = {
            name: re.findall(
                r"^!\[.+\]\((.+)\.png\)$", (folder / f"{kind}-{name}.md").read_text(), re.M
            )
            for name in names
        }
        assert [name for name, pictures in shown.items() if not pictures] == []
        assert len(shown) == len(names) == len(list(folder.glob(f"{kind}-*.md")))
        assert all((folder / f"{one}.png").is_file() for of in shown.values() for one in of)
    named = re.findall(r"\]\((.+\.png)\)", "".join(f.read_text() for f in folder.glob("*.md")))
    assert {file.name for file in folder.glob("*.png")} == set(named)


def test_a_method_is_drawn_beside_what_it_stands_over() -> None:
    gallery = gallery_script()
    suite = suites.load("gallery-methods")
    beside = {label: gallery._beside(suite, label) for label in gallery._shown_alone(suite)}
    assert beside["redo"] == ["adam", "redo"]
    assert beside["muon"] == ["adam", "muon"]
    assert beside["normalize-and-project"] == ["adam", "layer-norm", "normalize-and-project"]
    assert beside.keys() == suite.learners.keys() - {"adam", "layer-norm"}


def test_readme_says_how_much_the_quickstart_is() -> None:
    suite = suites.load("quickstart")
    words = dict(enumerate("no one two three four five six seven eight nine ten".split()))
    said = f"{words[len(suite.learners)]} learners on {words[len(suite.seeds)]} seeds"
    lengths = {one.options.task_length for one in suite.benchmarks.values()}
    readme = (ROOT / "README.md").read_text()
    assert said in readme
    assert all(f"every {length:,}" in readme for length in lengths)


def test_readme_is_a_few_screens() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 200
    # What a code host wraps may be longer: tables, and pictures with their descriptions.
    assert all(len(line) <= 100 for line in lines if not line.startswith(("|", "![")))


def test_links_between_pages_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: no {target}"
