"""``clrl bench ppo``: a population of PPO learners against Stable-Baselines3's PPO.

Both have the same hyperparameters and work in turn in one process, with one thread; times are
processor seconds, metrics and files included on our side. What counts is the ratio.

``clrl bench ppo --device cuda``: populations of growing size on a GPU against one on a core, in
seconds of the clock on the wall.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from clrl.agents.device import CPU, device_of
from clrl.bench.timing import add_time
from clrl.launch import process
from clrl.settings.config import RunConfig, resolve
from clrl.settings.values import Place
from clrl.storage.record import Recorder
from clrl.training.control import ControlTraining

ROLLOUT = 2048
"""Steps of one learner between two updates."""
STRETCH = 5
"""Iterations in a round; one line of metrics for each."""
LEARNERS = {"cpu": (16, 64), "cuda": (64, 256, 1024)}
"""CartPole learners in the populations that are measured on a device."""
PARTS = ("physics", "inference", "learning", "metrics")


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        env_id: the environment.
        seeds: learners in the population.
        num_envs: environments of each.
        goal: the ratio aimed at; 1 for one learner alone.
        rounds: how often both are measured.
    """

    env_id: str
    seeds: int
    num_envs: int
    goal: float
    rounds: int


CASES = (
    Case("CartPole-v1", 32, 8, 8.0, 3),
    Case("CartPole-v1", 1, 8, 1.0, 3),
    Case("HalfCheetah-v5", 16, 1, 5.0, 2),
    Case("Ant-v5", 16, 1, 2.3, 2),
)


def main(device: str | None = None) -> None:
    """Measure and print; takes about six minutes.

    Args:
        device: measure populations there in place of the comparison.

    Raises:
        UsageError: there is no such device.
    """
    process.set_up()
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)
    if device is not None:
        _on_device(device_of(device), console)
        return
    console.print(
        "PPO, 64-64 tanh, 2048 steps an update, batch 64, 10 epochs; one thread, in turn, "
        "median processor time"
    )
    table = Table(
        *("environment", "seeds", "envs", "SB3 /s", "clrl /s", "ratio", "goal"),
        *PARTS,
    )
    with Progress(console=console, transient=True) as progress:
        for case in progress.track(CASES, description="PPO"):
            table.add_row(*_row(case))
    console.print(table)
    console.print(_LEGEND)


_LEGEND = (
    "steps a second of all learners together; the last four columns are shares of our time: "
    "the environments with their wrappers, choosing actions, updates, diagnostics and files"
)


def _on_device(device: torch.device, console: Console) -> None:
    """Measure populations on a device, and the smallest of them on the CPU."""
    sizes = LEARNERS[device.type]
    rows = [] if device == CPU else [(CPU, sizes[0])]
    console.print(
        "PPO on CartPole, 8 environments a learner, 64-64 tanh, 2048 steps an update, batch 64, "
        "10 epochs; time on the wall, one round after one to warm up"
    )
    table = Table("device", "learners", "clrl /s", "ratio", *PARTS)
    slow = 0.0
    for place, learners in rows + [(device, size) for size in sizes]:
        case = Case("CartPole-v1", learners, 8, 1.0, 1)
        shares: dict[str, float] = defaultdict(float)
        with tempfile.TemporaryDirectory() as folder:
            stretch = _population(case, shares, place, _clock_of(place))(Path(folder))
            next(stretch)
            shares.clear()
            seconds = next(stretch)
        slow = slow or seconds
        parts = [f"{shares[part] / shares['all']:.0%}" for part in PARTS]
        ratio = f"{slow / seconds:.1f}x"
        table.add_row(place.type, str(learners), f"{1 / seconds:,.0f}", ratio, *parts)
    console.print(table)
    console.print(_LEGEND)


def _clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds on the wall, once the device has done what it was given."""
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def _row(case: Case) -> Iterator[str]:
    shares: dict[str, float] = defaultdict(float)
    theirs, ours = _stable_baselines(case), _population(case, shares)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        stretch = ours(Path(folder))
        for number in range(case.rounds + 1):
            if number == 1:  # the round before warmed up
                shares.clear()
            times.append((theirs(), next(stretch)))
    slow, fast = (statistics.median(column) for column in zip(*times[1:], strict=True))
    yield from (case.env_id, str(case.seeds), str(case.num_envs))
    yield from (f"{1 / slow:,.0f}", f"{1 / fast:,.0f}")
    yield f"{statistics.median(a / b for a, b in times[1:]):.1f}x"
    yield f"{case.goal:g}x"
    for part in PARTS:
        yield f"{shares[part] / shares['all']:.0%}"


def _stable_baselines(case: Case) -> Callable[[], float]:
    """What measures the seconds of one step of SB3's PPO."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env(case.env_id, case.num_envs, seed=0)
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=ROLLOUT // case.num_envs,
        seed=0,
        device="cpu",
        policy_kwargs={"optimizer_kwargs": {"eps": 1e-5}},
    )

    def measure() -> float:
        start = time.process_time()
        model.learn(STRETCH * ROLLOUT, reset_num_timesteps=False)
        return (time.process_time() - start) / (STRETCH * ROLLOUT)

    return measure


def _population(
    case: Case,
    shares: dict[str, float],
    device: torch.device = CPU,
    clock: Callable[[], float] = time.process_time,
) -> Callable[[Path], Iterator[float]]:
    """What measures the seconds of one step of one learner, and adds up where they went."""

    def stretches(folder: Path) -> Iterator[float]:
        folders = [folder / str(seed) for seed in range(case.seeds)]
        for one in folders:
            one.mkdir()
        sinks = {seed: Recorder(one) for seed, one in enumerate(folders)}
        training = ControlTraining(_config(case), range(case.seeds), device)
        add_time(training.envs, "step", "physics", shares, clock)
        add_time(training.agent, "act", "inference", shares, clock)
        add_time(training.agent, "update", "learning", shares, clock)
        add_time(training, "_log", "metrics", shares, clock)
        steps = training.steps(sinks)
        while True:
            start = clock()
            for _ in range(STRETCH):
                next(steps)
            seconds = clock() - start
            shares["all"] += seconds
            yield seconds / (STRETCH * ROLLOUT * case.seeds)

    return stretches


def _config(case: Case) -> RunConfig:
    assert torch.get_num_threads() == 1
    return resolve(
        {
            "benchmark": {"name": "gymnasium", "id": case.env_id},
            "agent": {
                "name": "ppo",
                "num_envs": case.num_envs,
                "num_steps": ROLLOUT // case.num_envs,
            },
            "network": {
                "name": "mlp",
                "widths": [64, 64],
                "activation": "tanh",
                "init": "orthogonal",
            },
            "optimizer": {"name": "adam", "lr": 3e-4, "eps": 1e-5},
            "steps": 10**9,
            "log_every": STRETCH * ROLLOUT,
        },
        Place("bench"),
    )
