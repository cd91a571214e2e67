"""``clrl bench streams``: the engine against a plain PyTorch loop on permuted MNIST.

Both run in this process, one thread, in turn: a stretch of the plain loop, a stretch of
the engine, and again. Times are processor seconds; what counts is the ratio.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from clrl.bench import baseline
from clrl.config import RunConfig, resolve
from clrl.envs.streams.data import mnist
from clrl.launch import process
from clrl.record import Recorder
from clrl.train import Training
from clrl.values import Place

MEMBERS = 4
ROUNDS = 3
EXAMPLES = 5_000
"""Examples a member learns in one stretch of the engine: one task of the suite."""
PLAIN_EXAMPLES = {"sgd": 3000, "adam": 1500, "upgd": 500}
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
    """Processor seconds an example of one learner, one value a round.

    Attributes:
        plain: the plain loop.
        engine: the engine as a run uses it, with metrics and files.
        bare: the engine with neither: streams and updates alone.
    """

    plain: list[float]
    engine: list[float]
    bare: list[float]

    def ratio(self) -> float:
        """How many times as fast the engine is; the median over rounds."""
        return statistics.median(a / b for a, b in zip(self.plain, self.engine, strict=True))

    def overhead(self) -> float:
        """What metrics and files add, as a fraction; the median over rounds."""
        return statistics.median(a / b for a, b in zip(self.engine, self.bare, strict=True)) - 1


def main() -> None:
    """Measure and print; needs MNIST.

    Raises:
        UsageError: MNIST cannot be had.
    """
    data = mnist("unit", "train")
    images = torch.from_numpy(data.inputs * 255).round().to(torch.uint8)
    labels = torch.from_numpy(data.labels.copy())
    process.set_up()
    console = Console()
    console.print(
        f"784-300-150-10, batch 1, {MEMBERS} learners in the engine, 1 in the plain loop; "
        f"one thread; {ROUNDS} rounds in turn; median processor time"
    )
    table = Table("rule", "plain /s", "engine /s", "ratio", "goal", "metrics+files", "of limit")
    bandwidth = _bandwidth()
    for rule, goal in GOALS.items():
        timing = _measure(rule, images, labels)
        engine = statistics.median(timing.engine)
        limit = 4 * SWEEPS[rule] * _weights() / bandwidth
        table.add_row(
            rule,
            f"{1 / statistics.median(timing.plain):,.0f}",
            f"{1 / engine:,.0f}",
            f"{timing.ratio():.1f}x",
            f"{goal:.1f}x",
            f"{timing.overhead():+.1%}",
            f"{limit / engine:.0%}",
        )
    console.print(table)
    console.print(
        f"of limit: the time to move the rule's weights, gradients and state through memory "
        f"once a pass at the measured {bandwidth / 1e9:.0f} GB/s, over the engine's time"
    )


def _measure(rule: str, images: Tensor, labels: Tensor) -> Timing:
    plain_loop = baseline.learn(rule, images, labels)
    timing = Timing([], [], [])
    with tempfile.TemporaryDirectory() as folder:
        with_metrics = _runs(rule, Path(folder))
        without = _bare(rule)
        for turn in range(ROUNDS + 1):
            count = PLAIN_EXAMPLES[rule]
            plain = _seconds(lambda: _take(plain_loop, count)) / count  # noqa: B023
            engine = _seconds(lambda: next(with_metrics)) / (EXAMPLES * MEMBERS)
            bare = _seconds(lambda: next(without)) / (EXAMPLES * MEMBERS)
            if turn:  # the first round pays for recording and caches
                timing.plain.append(plain)
                timing.engine.append(engine)
                timing.bare.append(bare)
    return timing


def _take(iterator: Iterator[float], count: int) -> None:
    for _ in itertools.islice(iterator, count):
        pass


def _seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def _config(rule: str) -> RunConfig:
    raw = {
        "benchmark": "permuted-mnist",
        "optimizer": OPTIMIZERS[rule],
        "steps": EXAMPLES * (ROUNDS + 2),
        "log_every": EXAMPLES,
    }
    return resolve(raw, Place("bench"))


def _runs(rule: str, folder: Path) -> Iterator[None]:
    """Train as a run does, pausing after each task."""
    training = Training(_config(rule), range(MEMBERS))
    folders = {seed: folder / f"{rule}-{seed}" for seed in range(MEMBERS)}
    for one in folders.values():
        one.mkdir()
    recorders = {seed: Recorder(one) for seed, one in folders.items()}
    for _ in training.steps(recorders):
        if training.step % EXAMPLES == 0:
            yield


def _bare(rule: str) -> Iterator[None]:
    """The same updates, with nothing measured or written."""
    training = Training(_config(rule), range(MEMBERS))
    block = training.agent.options.diagnose_every
    while True:
        for _ in range(EXAMPLES // block):
            training.agent.learn(*training.next_examples(block))
        yield


def _weights() -> int:
    return 784 * 300 + 300 + 300 * 150 + 150 + 150 * 10 + 10


def _bandwidth() -> float:
    """Bytes a second of ``a += b`` on arrays of all members' size (two reads, a write)."""
    a, b = torch.ones(MEMBERS * _weights()), torch.ones(MEMBERS * _weights())
    times = [_seconds(lambda: a.add_(b)) for _ in range(20)]
    return 12 * a.numel() / min(times)
