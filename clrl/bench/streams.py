"""``clrl bench streams``: the engine against a plain PyTorch loop on permuted MNIST.

The plain loop and the engine have a process each, one thread a process, and work in turn: a
stretch of one while the other waits, and again. Times are processor seconds; what counts is
the ratio.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich.console import Console

from clrl import machine
from clrl.bench.timing import add_time
from clrl.envs.streams.data import mnist, mnist_files
from clrl.launch import process
from clrl.settings.config import RunConfig, resolve
from clrl.settings.values import Place
from clrl.storage.record import Recorder
from clrl.training.streams import Training

MEMBERS = 4
ROUNDS = {"upgd": 2, "sgd": 7, "adam": 5}
"""The less a stretch takes, the more of them."""
EXAMPLES = 5_000
"""Examples a member learns in one stretch of the engine: one task of the suite."""
PLAIN_EXAMPLES = {"sgd": 3000, "adam": 1500, "upgd": 500}
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(machine.MMAP_THRESHOLD),
    "MALLOC_TRIM_THRESHOLD_": str(machine.TRIM_THRESHOLD),
}
"""What `clrl.machine` sets for the engine, as glibc takes it from the environment."""
GOALS = {"upgd": 3.5, "sgd": 2.5, "adam": 2.0}

# Sweeps over the weights that no implementation of the rule in separate passes avoids, in
# numbers a weight: forward (read w), backward (read w, write g), update.
SWEEPS = {
    "sgd": 3 + 3,  # read w, g; write w
    "adam": 3 + 7,  # and read and write both averages
    "upgd": 3 + 5 + 2,  # and read and write the utility; write and read the noise
}

OPTIMIZERS = {
    "sgd": {"name": "sgd", "lr": 1e-3, "weight_decay": 1e-3},
    "adam": {"name": "adam", "lr": 1e-4, "betas": [0.0, 0.99]},
    "upgd": {"name": "upgd", "lr": 0.01, "sigma": 0.1, "weight_decay": 0.01},
}


@dataclass(frozen=True)
class Timing:
    """Processor seconds an example of one learner, one a round.

    Attributes:
        plain: the plain loop.
        kept: the plain loop in a process set up like the engine's.
        engine: the engine as a run uses it, with metrics and files.
        bare: of that, the time in streams and updates alone.
    """

    plain: list[float]
    kept: list[float]
    engine: list[float]
    bare: list[float]


COLUMNS = ("rule", "plain /s", "engine /s", "ratio", "goal", "kept", "metrics+files", "of limit")


def main() -> None:
    """Measure and print a row a rule; needs MNIST.

    Raises:
        UsageError: MNIST cannot be had.
    """
    mnist("symmetric", "train")
    console = Console()
    console.print(
        f"784-300-150-10, batch 1, {MEMBERS} learners in the engine, 1 in the plain loop; "
        f"one thread each, in turn, median processor time"
    )
    console.print(_line(COLUMNS))
    with tempfile.TemporaryDirectory() as folder, _Engine(Path(folder)) as engine:
        for rule, goal in GOALS.items():
            timing = _measure(rule, engine)
            seconds = statistics.median(timing.engine)
            limit = 4 * SWEEPS[rule] * _WEIGHTS / engine.bandwidth
            row = (
                rule,
                f"{1 / statistics.median(timing.plain):,.0f}",
                f"{1 / seconds:,.0f}",
                f"{_ratio(timing.plain, timing.engine):.1f}x",
                f"{goal:.1f}x",
                f"{_ratio(timing.kept, timing.engine):.1f}x",
                f"{_ratio(timing.engine, timing.bare) - 1:+.1%}",
                f"{limit / seconds:.0%}",
            )
            console.print(_line(row))
    console.print(
        "rates are examples of one learner a second; kept: the ratio to a plain loop whose "
        "process keeps freed memory as the engine's does; metrics+files: what measuring and "
        "recording add to the engine's time; of limit: the least time in which the rule's "
        "weights, gradients and state are read and written once a sweep, at the measured "
        f"{engine.bandwidth / 1e9:.0f} GB/s, over the engine's time"
    )


def _line(cells: Sequence[str]) -> str:
    """A row, to be printed while the next ones are still measured."""
    return "".join(f"{cell:>{len(head) + 2}}" for cell, head in zip(cells, COLUMNS, strict=True))


def _measure(rule: str, engine: _Engine) -> Timing:
    rounds = []
    with _Plain(rule) as plain, _Plain(rule, **KEEP_MEMORY) as kept:
        for one in (plain, kept):  # caches are cold
            one.ask()
        for _ in range(ROUNDS[rule]):
            rounds.append((plain.ask(), kept.ask(), *engine.ask(rule)))
    return Timing(*(list(column) for column in zip(*rounds, strict=True)))


def _ratio(slow: list[float], fast: list[float]) -> float:
    """The median over rounds of the ratio of two times."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


class _Plain:
    """The plain loop, as a script of its own."""

    def __init__(self, rule: str, **environment: str) -> None:
        paths = [
            str(path)
            for path in mnist_files(["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
        ]
        arguments = [rule, *paths, str(PLAIN_EXAMPLES[rule])]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "clrl.bench.baseline", *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def ask(self) -> float:
        """Processor seconds an example, over a stretch."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


class _Engine:
    """The engine, in a process that is set up as a run's is."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_engine, args=(other, folder), daemon=True)

    def __enter__(self) -> _Engine:
        self._process.start()
        self.bandwidth: float = self._connection.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def ask(self, rule: str) -> tuple[float, float]:
        """One measurement; see `_whole_and_bare`."""
        self._connection.send(rule)
        answer: tuple[float, float] = self._connection.recv()
        return answer


def _engine(connection: Connection, folder: Path) -> None:
    """Answer rules with what `_whole_and_bare` gives, again and again."""
    process.set_up()
    connection.send(_bandwidth())
    rules: dict[str, Iterator[tuple[float, float]]] = {}
    while True:
        rule = connection.recv()
        if rule not in rules:
            rules[rule] = _whole_and_bare(rule, folder)
        connection.send(next(rules[rule]))


def _whole_and_bare(rule: str, folder: Path) -> Iterator[tuple[float, float]]:
    """Processor seconds an example: of a run, and of its streams and updates alone."""
    folders = {seed: folder / f"{rule}-{seed}" for seed in range(MEMBERS)}
    for one in folders.values():
        one.mkdir()
    recorders = {seed: Recorder(one) for seed, one in folders.items()}
    training = Training(_config(rule), range(MEMBERS))
    shares: dict[str, float] = defaultdict(float)
    add_time(training, "next_examples", "bare", shares, time.process_time)
    add_time(training.agent, "learn", "bare", shares, time.process_time)
    steps = training.steps(recorders)
    for _ in range(3):  # recording the step, and filling caches, is not measured
        next(steps)
    while True:
        shares.clear()
        first, start = training.step, time.process_time()
        _one_task(steps)
        whole, count = time.process_time() - start, (training.step - first) * MEMBERS
        yield whole / count, shares["bare"] / count


def _one_task(steps: Iterator[int]) -> None:
    """Train as a run does, to the end of a task."""
    for step in steps:
        if step % EXAMPLES == 0:
            return


def _seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def _config(rule: str) -> RunConfig:
    raw = {
        "benchmark": "permuted-mnist",
        "optimizer": OPTIMIZERS[rule],
        "steps": EXAMPLES * (ROUNDS[rule] + 1),
        "log_every": EXAMPLES,
    }
    return resolve(raw, Place("bench"))


_WEIGHTS = 784 * 300 + 300 + 300 * 150 + 150 + 150 * 10 + 10


def _bandwidth() -> float:
    """Bytes a second of ``a += b`` on arrays of all members' size (two reads, a write)."""
    a, b = torch.ones(MEMBERS * _WEIGHTS), torch.ones(MEMBERS * _WEIGHTS)
    times = [_seconds(lambda: a.add_(b)) for _ in range(20)]
    return 12 * a.numel() / min(times)
