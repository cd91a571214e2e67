"""The shape of the house: who imports whom, what is packaged, what loads torch."""

import ast
import graphlib
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
ROOMS = {"agents": "clrl.agents", "clrl": "clrl", "configs": "clrl.configs", "envs": "clrl.envs"}

# Whom each wing may import besides itself and the leaves. The chain is
# cli -> {runs, suites} -> launch -> training -> {envs, agents, metrics, settings, storage}.
LEAVES = {"benchmarks", "changes", "errors", "machine", "options", "registry", "seeding", "version"}
THREE = {"agents", "envs", "metrics"}
TRAINING = {*THREE, "settings", "storage"}
LAUNCH = {*TRAINING, "training"}
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys([*LEAVES, *THREE, "configs", "storage"], set()),
    "": {"report", "runs", "training"},  # the Python interface; loaded when it is used
    **dict.fromkeys(["networks", "optim"], {"agents"}),  # faces
    "settings": {*THREE},
    "training": TRAINING,
    "launch": LAUNCH,
    "suites": {*LAUNCH, "configs", "launch"},
    "tuned": {*LAUNCH, "launch", "suites"},
    "runs": {*LAUNCH, "launch", "report", "suites", "tuned"},
    "report": {"metrics", "settings", "storage"},
    "bench": {*LAUNCH, "launch"},
    "testing": LAUNCH,  # and nothing imports it
    "cli": {*LAUNCH, "bench", "launch", "report", "suites", "tuned"},
    "__main__": {"cli"},
}


def sources() -> dict[str, Path]:
    """Module name -> file, for every module of the package."""
    found = {}
    for folder, package in ROOMS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


SOURCES = sources()


def wing_of(module: str) -> str:
    """The entry of MAY_IMPORT that a module falls under; empty for the package itself."""
    return module.removeprefix("clrl").lstrip(".").partition(".")[0]


def imports_in(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every module that a source imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = node.level - is_package
                package = module.split(".")[: -up or None]
                base = ".".join([*package, *([base] if base else [])])
            for alias in node.names:  # the name may itself be a module: from clrl import x
                inner = f"{base}.{alias.name}"
                yield inner if inner in SOURCES else base
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def imports_of(module: str) -> set[str]:
    path = SOURCES[module]
    return set(imports_in(path.read_text(), module, path.name == "__init__.py"))


def distribution_key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


ELSEWHERE = ("ray", "slurm", "wandb", "mlflow", "optimizers")
"""Extras without which tests run, or skip."""


def named(requirements: list[str]) -> set[str]:
    return {distribution_key(re.split(r"[^\w.-]", one)[0]) for one in requirements}


def test_imports_are_found_in_every_spelling() -> None:
    source = (
        "import clrl.errors\nfrom clrl import seeding\nfrom . import options\n"
        "from .table import X\nfrom ..metrics import names\n"
        "def f():\n    import torch.nn\n    importlib.import_module('clrl.cli')\n"
    )
    assert set(imports_in(source, "clrl.agents", is_package=True)) == {
        "clrl.errors",
        "clrl.seeding",
        "clrl.agents.options",
        "clrl.agents.table",
        "clrl.metrics",
        "torch.nn",
        "clrl.cli",
    }
    assert set(imports_in("from .options import A", "clrl.agents.table", is_package=False)) == {
        "clrl.agents.options"
    }


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_only_what_its_wing_may(module: str) -> None:
    wing = wing_of(module)
    assert wing in MAY_IMPORT, f"{wing} is new: say in MAY_IMPORT whom it may import"
    allowed = MAY_IMPORT[wing] | LEAVES | {wing, ""}
    for name in imports_of(module):
        top = name.split(".")[0]
        assert top not in ROOMS or top == "clrl", f"{module} imports {name}: say clrl.{name}"
        assert not (wing == "envs" and top == "torch"), f"{module} imports torch"
        assert top != "clrl" or wing_of(name) in allowed, f"{module} imports {name}"


def inside(folder: str) -> dict[str, set[str]]:
    """What a folder holds, each with what else in the folder it imports: modules and folders.

    Importing a module runs the ``__init__`` of the folders that it lies in; the folder's own
    counts as a module beside the others.
    """

    def part(module: str) -> str:
        return ".".join(module.split(".")[: folder.count(".") + 2])

    found: dict[str, set[str]] = {}
    for module in SOURCES:
        if f"{module}.".startswith(f"{folder}."):
            names = {name for name in imports_of(module) if f"{name}.".startswith(f"{folder}.")}
            found.setdefault(part(module), set()).update(map(part, names))
    return {one: others - {one} for one, others in found.items()}


@pytest.mark.parametrize("folder", sorted(SETUPTOOLS["packages"]))
def test_no_circle(folder: str) -> None:
    graph = inside(folder)
    assert graph
    list(graphlib.TopologicalSorter(graph).static_order())  # raises where there is one


def test_modules_are_short() -> None:
    lines = sorted(len(path.read_text().splitlines()) for path in SOURCES.values())
    assert lines[-1] < 600 and lines[len(lines) // 2] < 200


def test_every_import_is_a_declared_dependency_and_the_reverse() -> None:
    providers = importlib.metadata.packages_distributions()
    names = {name.split(".")[0] for module in SOURCES for name in imports_of(module)}
    optional = PROJECT["project"]["optional-dependencies"]
    elsewhere = named([one for key in ELSEWHERE for one in optional[key]])
    outside = names - set(sys.stdlib_module_names) - {"clrl"}
    outside = {name for name in outside if distribution_key(name) not in elsewhere}
    unknown = sorted(outside - providers.keys())
    assert not unknown, f"imported and not installed: {unknown}"
    used = {name: set(map(distribution_key, providers[name])) for name in outside}
    declared = named(PROJECT["project"]["dependencies"])
    optional = PROJECT["project"]["optional-dependencies"]
    allowed = declared.union(*(named(optional[name]) for name in ("box2d", "mujoco", "parquet")))
    undeclared = {name for name, distributions in used.items() if not distributions & allowed}
    assert not undeclared
    assert declared <= set().union(*used.values())


def test_every_package_is_listed() -> None:
    packages = {name for name, path in SOURCES.items() if path.name == "__init__.py"}
    assert packages == set(SETUPTOOLS["packages"])
    assert SETUPTOOLS["package-dir"] == {package: folder for folder, package in ROOMS.items()}


def test_every_folder_of_modules_is_a_package_and_tests_are_none() -> None:
    bare = {path.parent for path in SOURCES.values() if not (path.parent / "__init__.py").exists()}
    assert not bare
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert not (path.parent / "__init__.py").exists(), f"{path.parent} has an __init__.py"


def loaded_by(modules: list[str], cwd: Path) -> set[str]:
    """The top-level modules that a fresh interpreter holds after importing some."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, check=True, capture_output=True, text=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_environments_load_no_torch(tmp_path: Path) -> None:
    environments = [name for name in SOURCES if wing_of(name) == "envs"]
    assert "torch" not in loaded_by(environments, tmp_path)


HEAVY = {"torch", "sklearn", "scipy", "stable_baselines3", "tensorboard", "matplotlib"}


@pytest.mark.parametrize("words", ["list", "--help", "--version"])
def test_what_answers_at_once_loads_little(words: str, tmp_path: Path) -> None:
    code = "import sys; from clrl.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words.split()],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    answer, _, modules = done.stdout.rstrip().rpartition("\n")
    assert "clrl" in answer or "permuted-digits" in answer
    unwanted = HEAVY | {"gymnasium", "numpy", "pandas", "pydantic", "rich", "typeguard"}
    if words != "list":
        unwanted |= {"tyro", "yaml"}
    assert not unwanted & {name.split(".")[0] for name in modules.split()}


def test_tables_load_nothing_heavy(tmp_path: Path) -> None:
    light = [
        name
        for name in SOURCES
        if name in {"clrl", "clrl.cli.main", "clrl.settings.config", "clrl.suites"}
        or wing_of(name) in LEAVES
        or name.split(".")[-1] in {"table", "options", "benchmarks", "changes"}
    ]
    assert not HEAVY & loaded_by(light, tmp_path)


def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("needs setuptools, which the development set-up installs")
    tree = tmp_path / "tree"
    tree.mkdir()
    for folder in ROOMS:
        shutil.copytree(ROOT / folder, tree / folder)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps"]
        + ["--no-build-isolation", "--wheel-dir", str(tmp_path), str(tree)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    version = importlib.metadata.version("clrl")
    assert {name.parts[0] for name in names} == {"clrl", f"clrl-{version}.dist-info"}

    expected = {Path("clrl/py.typed")}
    for module, path in SOURCES.items():
        folder = module if path.name == "__init__.py" else module.rpartition(".")[0]
        expected.add(Path(*folder.split("."), path.name))
    for path in (ROOT / "configs").rglob("*.yaml"):
        expected.add(Path("clrl") / path.relative_to(ROOT))
    for path in (ROOT / "agents" / "engine" / "kernels").iterdir():
        expected.add(Path("clrl") / path.relative_to(ROOT))
    expected.add(Path("clrl/report/page.html.jinja"))
    assert {name for name in names if name.parts[0] == "clrl"} == expected
    assert any(name.parts[1:] == ("licenses", "LICENSE") for name in names)
