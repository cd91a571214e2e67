"""Damaged checkpoints of real runs: none is used, and each run ends as if nothing had been."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import results
import torture

from clrl.storage import checkpoint
from clrl.training import dispatch
from clrl.training.attempt import Attempt

CASES = ["upgd", "continual-backprop", "ppo-cartpole", "sb3-sac"]


def attempt(case: torture.Case) -> list[str]:
    """An attempt in this process; what it had to say."""
    said: list[str] = []
    Attempt(
        case.config, case.folders, case.keeping, lambda *_: None, said.append, resumes=True
    ).run()
    return said


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_hundred_flipped_bits_and_cuts(name: str, tmp_path: Path) -> None:
    """Of the newest one, and one time in ten of both."""
    draw = random.Random(name)
    whole = torture.Case(torture.CASES[name], tmp_path / "whole")
    dispatch.prepare(whole.config)
    for folder in whole.folders.values():
        folder.mkdir(parents=True)
    assert attempt(whole) == []
    wanted = results.of_folder(whole.out)
    assert (whole.home / checkpoint.PREVIOUS).exists()
    for number in range(100):
        case = torture.Case(torture.CASES[name], tmp_path / "damaged")
        shutil.copytree(whole.out, case.out)
        both = number % 10 == 0
        damaged = [case.home / checkpoint.NAME] + [case.home / checkpoint.PREVIOUS] * both
        for path in damaged:
            content = bytearray(path.read_bytes())
            if draw.random() < 0.5:
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            else:
                del content[draw.randrange(len(content)) :]
            path.write_bytes(content)
        said = attempt(case)
        assert [line.partition(": ")[0] for line in said] == [str(path) for path in damaged]
        assert said[-1].endswith("it begins anew" if both else "the previous one is used")
        assert results.of_folder(case.out) == wanted
        assert not list(case.home.glob("*.tmp"))
        shutil.rmtree(case.out)
