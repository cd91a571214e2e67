from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clrl.benchmarks import BENCHMARKS
from clrl.envs.streams.base import Stream
from clrl.registry import Entry

DOCS = Path(__file__).parents[2] / "docs" / "streams.md"


STREAMS = [entry for entry in BENCHMARKS if ".streams." in entry.target]


def test_names() -> None:
    assert [entry.name for entry in STREAMS] == [
        "permuted-mnist",
        "label-permuted-mnist",
        "permuted-digits",
        "label-permuted-digits",
        "slow-regression",
        "split",
        "permuted-tasks",
        "rotated",
        "months",
    ]


@pytest.mark.parametrize("entry", STREAMS, ids=lambda entry: entry.name)
def test_every_entry_makes_a_stream_from_its_options(entry: Entry) -> None:
    options = entry.options_type()()
    needs_mnist = "mnist" in entry.name or getattr(options, "data", "") == "mnist"
    if needs_mnist and not os.environ.get("CLRL_DATA"):
        pytest.skip("CLRL_DATA does not name a folder with MNIST")
    stream = entry.load()(3, **dataclasses.asdict(options))
    assert isinstance(stream, Stream)
    assert stream.task_length == options.task_length
    x, y = stream.next(3)
    assert x.shape == (3, stream.input_size) and len(y) == 3
    assert stream.probe(10).shape == (10, stream.input_size)
    assert json.loads(json.dumps(stream.state_dict()))["position"] == 3
    again = entry.load()(3).next(3)  # the constructor's own defaults are the same
    np.testing.assert_array_equal(again[0], x)
    np.testing.assert_array_equal(again[1], y)


@pytest.mark.parametrize("entry", STREAMS, ids=lambda entry: entry.name)
def test_options_and_constructor_agree(entry: Entry) -> None:
    options = entry.options_type()
    parameters = list(inspect.signature(entry.load()).parameters.values())
    assert parameters[0].name == "seed"
    defaults = {parameter.name: parameter.default for parameter in parameters[1:]}
    assert defaults == dataclasses.asdict(options())
    assert options.__doc__ and "Attributes:" in options.__doc__
    assert all(f"{name}: " in options.__doc__ for name in defaults)


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from clrl.benchmarks import BENCHMARKS; "
        "[entry.options_type() for entry in BENCHMARKS if entry.source == 'built in']; "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "sklearn", "pooch", "scipy", "mujoco", "Box2D"} & set(done.stdout.split())
    assert not heavy


def test_streams_do_without_torch() -> None:
    code = (
        "import sys; from clrl.envs.streams.permuted import PermutedDigits; "
        "import clrl.envs.streams.regression; PermutedDigits(0).next(3); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "pooch"} & set(done.stdout.split())


def test_the_documented_stream_works_as_a_plug_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "documented_stream.py").write_text(blocks[0])
    monkeypatch.chdir(tmp_path)
    entry = BENCHMARKS.find("documented_stream:DriftingLine")
    fields = {field.name: field.default for field in dataclasses.fields(entry.options_type())}
    assert fields == {"task_length": 1000, "noise": 0.1}
    stream, other = entry.load()(0, noise=0.0), entry.load()(0, noise=0.0)
    x, y = stream.next(2500)
    pieces = [other.next(n) for n in (999, 1, 1, 1499)]
    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in pieces]), x)
    np.testing.assert_array_equal(np.concatenate([piece[1] for piece in pieces]), y)
    slopes = (y / x).reshape(-1)
    assert np.allclose(slopes[:1000], slopes[0]) and np.allclose(slopes[1000:2000], slopes[1000])
    assert not np.isclose(slopes[0], slopes[1000])
    state = stream.state_dict()
    future = stream.next(700)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.next(700)[0], future[0])
    assert stream.probe(5).shape == (5, 1)
