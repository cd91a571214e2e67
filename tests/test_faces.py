"""What users import, from where, and what that loads."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

FACES = (
    "clrl",
    "clrl.agents",
    "clrl.envs",
    "clrl.metrics",
    "clrl.networks",
    "clrl.optim",
    "clrl.testing",
)


@pytest.mark.parametrize("face", FACES)
def test_a_face_has_what_it_says(face: str) -> None:
    module = importlib.import_module(face)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        module.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize("face", ["clrl", "clrl.agents", "clrl.metrics", "clrl.testing"])
def test_type_checkers_see_what_is_loaded_late(face: str) -> None:
    """The imports for them, the names of ``__all__`` and what is loaded are the same things."""
    module = importlib.import_module(face)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    late = {
        alias.name: str(node.module)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    early = set() if face != "clrl" else {"RunsFailed", "StorageError", "UsageError", "__version__"}
    assert late.keys() | early == set(module.__all__)
    for name, home in late.items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)


@pytest.mark.parametrize(
    ("use", "loads_torch"),
    [
        ("None", False),
        (
            "clrl.run, clrl.suite, clrl.load, clrl.envs, clrl.agents, clrl.metrics, clrl.testing",
            False,
        ),
        ("clrl.metrics.forgetting, clrl.agents.PPOOptions", False),
        ("clrl.optim.UPGD, clrl.networks.MLP, clrl.agents.PPO, clrl.metrics.srank", True),
    ],
)
def test_loads_torch_when_it_is_needed(use: str, loads_torch: bool, tmp_path: Path) -> None:
    code = f"import sys, clrl; {use}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == f"{loads_torch}\n"
