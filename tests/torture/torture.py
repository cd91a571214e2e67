"""Kills training again and again, and compares what it ends with to an uninterrupted run.

``python tests/torture/torture.py [--kills N] [--seed N] [CASE ...]``. A case is trained without
interruption first. Then it is trained by attempts that end with SIGKILL: at a named point (see
`kills`), each of those that there are in turn, or at a random instant, where one in three is asked
by a signal instead. A run that comes to its end is compared with the first one by the SHA-256 of
everything in its last checkpoint (parameters, optimizers, environments, generators) and of its
metrics without times, and the next begins.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kills
import results

from clrl.launch.process import set_up
from clrl.machine import STOPPING
from clrl.settings.config import RunConfig, config_hash, resolve, to_dict
from clrl.settings.values import Place
from clrl.storage import checkpoint, record
from clrl.storage.checkpoint import Keeping
from clrl.training import dispatch
from clrl.training.attempt import Attempt, Preempted

STREAM: dict[str, Any] = {
    "benchmark": {"name": "permuted-digits", "task_length": 300},
    "network": {"name": "mlp", "widths": [24, 12]},
    "steps": 1600,
    "log_every": 100,
    "chunk_size": 2,
    "checkpoint_steps": 200,
}
PPO: dict[str, Any] = {
    "agent": {"name": "ppo", "num_envs": 2, "num_steps": 64, "batch_size": 32, "epochs": 2},
    "network": {"name": "mlp", "widths": [16, 16]},
    "optimizer": {"name": "adam", "lr": 1e-3},
    "steps": 1280,
    "log_every": 128,
    "chunk_size": 2,
    "checkpoint_steps": 200,
}
CONTINUAL_BACKPROP = {
    "name": "continual-backprop",
    "lr": 0.01,
    "replacement_rate": 1e-3,
    "maturity_threshold": 50,
}
CASES: dict[str, dict[str, Any]] = {
    "sgd": {**STREAM, "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}},
    "adam": {**STREAM, "optimizer": {"name": "adam", "lr": 1e-3}},
    "shrink-and-perturb": {**STREAM, "optimizer": {"name": "shrink-and-perturb", "lr": 0.01}},
    "continual-backprop": {**STREAM, "optimizer": CONTINUAL_BACKPROP},
    "upgd": {**STREAM, "optimizer": {"name": "upgd", "lr": 0.01}},
    "ppo-cartpole": {**PPO, "benchmark": {"name": "switching-cartpole", "task_length": 500}},
    "ppo-mujoco": {
        **PPO,
        "agent": {**PPO["agent"], "normalize_observations": True, "normalize_rewards": "sb3"},
        "benchmark": {"name": "slippery-half-cheetah", "task_length": 500},
        "steps": 1024,
    },
    "sb3-ppo": {
        **PPO,
        "benchmark": {"name": "switching-cartpole", "task_length": 500},
        "agent": {"name": "sb3:PPO", "num_envs": 2, "n_steps": 64, "batch_size": 32, "n_epochs": 2},
        "steps": 768,
        "checkpoint_steps": 100,
    },
    "sb3-sac": {
        **PPO,
        "benchmark": {"name": "slippery-half-cheetah", "task_length": 200},
        "agent": {
            "name": "sb3:SAC", "buffer_size": 200, "learning_starts": 40, "batch_size": 16,
            "train_freq": 4,
        },
        "steps": 200,
        "log_every": 20,
        "checkpoint_steps": 20,
    },
}  # fmt: skip
SEEDS = (0, 1)
ASKED, BROKEN = 3, 4  # exit statuses of an attempt


class Case:
    """One configuration, trained below a folder.

    Args:
        raw: the configuration, and how many steps lie between two checkpoints.
        out: where it is trained.
    """

    def __init__(self, raw: dict[str, Any], out: Path) -> None:
        plain = dict(raw)
        self.keeping = Keeping(steps=plain.pop("checkpoint_steps"))
        self.config: RunConfig = resolve(plain, Place("case"))
        self.out = out
        self.folders = {seed: out / f"seed-{seed}" for seed in SEEDS}
        self.home = self.folders[SEEDS[0]]
        self.remarks = out.with_name(out.name + ".remarks")

    def attempt(
        self, on_point: Callable[[str], None], wait: Callable[[int], None] = lambda pid: None
    ) -> int:
        """Make one attempt, in a process of its own, as a worker does.

        Returns:
            0 at the run's end; the signal that ended it, negative; or `ASKED`.
        """
        digest = config_hash(self.config)
        for seed, folder in self.folders.items():
            record.start_run(
                folder, seed, to_dict(self.config), digest, population=list(self.folders)
            )
        pid = os.fork()
        if not pid:
            self._train(on_point)
        wait(pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert not self.remarks.exists(), self.remarks.read_text()
        assert code in (0, ASKED, -signal.SIGKILL), f"exit status {code}"
        return code

    def _train(self, on_point: Callable[[str], None]) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            kills.install(self.out, on_point)
            Attempt(
                self.config, self.folders, self.keeping, lambda *_: None, self._remark, resumes=True
            ).run()
            os._exit(0)
        except Preempted:
            os._exit(ASKED)
        except BaseException:
            traceback.print_exc()
            os._exit(BROKEN)

    def _remark(self, line: str) -> None:
        """What an attempt has to say, such as that a checkpoint is damaged: a kill damages none."""
        self.remarks.write_text(line)

    def points(self) -> Counter[str]:
        """Every named point of a whole run, and of going on from one, with how often it is met."""
        met: Counter[str] = Counter()
        for _ in range(2):
            reader, writer = os.pipe()

            def note(point: str, to: int = writer) -> None:
                _write(to, f"{point}\n".encode())

            pid = os.fork()  # so that a full pipe stops nobody
            if not pid:
                os.close(reader)
                os._exit(self.attempt(note))
            os.close(writer)
            with open(reader) as pipe:
                met.update(line.strip() for line in pipe)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return met

    def check_survivors(self, had: bool) -> bool:
        """See that what a death left can be gone on from; whether there is a checkpoint."""
        whole = [checkpoint.read(path) for path in checkpoint.candidates(self.home)]
        assert whole or not had, "the checkpoint is gone"
        for folder in self.folders.values():
            record.read_metrics(folder / record.METRICS)
        return bool(whole)


_write = os.write  # itself no point


def torture(name: str, count: int, draw: random.Random, scratch: Path) -> str:
    """Kill one case so many times.

    Returns:
        What happened, in a line.

    Raises:
        AssertionError: a run ended otherwise than the uninterrupted one.
    """
    start = time.monotonic()
    dispatch.prepare(Case(CASES[name], scratch).config)
    first = Case(CASES[name], scratch / "uninterrupted")
    took = time.monotonic()
    assert first.attempt(lambda _: None) == 0
    took = time.monotonic() - took
    wanted = results.of_folder(first.out)
    points = first.points()
    assert results.of_folder(first.out) == wanted, "going on from the end changes it"
    results.check_files(first.out)

    left, completed, had = count, 0, False
    how: Counter[str] = Counter()
    ways = _ways(points, took, draw)
    case = Case(CASES[name], scratch / "killed-0")
    while left or case.home.exists():
        way = next(ways) if left else None
        code = case.attempt(*_doing(way)) if way else case.attempt(lambda _: None)
        if code:
            left -= 1
            how["asked" if code == ASKED else "named" if isinstance(way[0], str) else "random"] += 1
            had = case.check_survivors(had)
            continue
        for seed in SEEDS:
            record.end_run(case.folders[seed], "finished")
        ended = results.of_folder(case.out)
        wrong = [key for key in wanted if ended.get(key) != wanted[key]]
        assert ended.keys() == wanted.keys() and not wrong, f"{name}: {case.out} differs in {wrong}"
        results.check_files(case.out)
        completed, had = completed + 1, False
        case = Case(CASES[name], scratch / f"killed-{completed}")
    parts = ", ".join(f"{number} {kind}" for kind, number in sorted(how.items()))
    return (
        f"{name}: {count} kills ({parts}) of {len(points)} points, {completed} runs as the "
        f"uninterrupted one, {time.monotonic() - start:.0f} s"
    )


def _ways(
    points: Counter[str], took: float, draw: random.Random
) -> Iterator[tuple[str | float, int]]:
    """By turns a named point and which time it is met, and an instant and a signal."""
    names = sorted(points)
    draw.shuffle(names)
    for name in itertools.cycle(names):
        yield name, draw.randint(1, min(points[name], 6))
        number = draw.choice([signal.SIGKILL, signal.SIGKILL, draw.choice(STOPPING)])
        yield draw.uniform(0, took / 2), number


def _doing(way: tuple[str | float, int]) -> tuple[Callable[[str], None], Callable[[int], None]]:
    """What an attempt does at its points, and who waits for it."""
    where, which = way
    met = itertools.count(1)

    def at_point(point: str) -> None:
        if point == where and next(met) == which:
            kills.die()

    def wait(pid: int) -> None:
        if not isinstance(where, str):
            time.sleep(where)
            os.kill(pid, which)

    return at_point, wait


def main() -> None:
    """Read the command line and go through the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--kills", type=int, default=50, help="a case")
    parser.add_argument("--seed", type=int, default=0, help="of the draws of points and instants")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"unknown cases: {', '.join(sorted(unknown))}")
    set_up()
    for name in options.cases or CASES:
        draw = random.Random(f"{options.seed} {name}")
        with tempfile.TemporaryDirectory(prefix="clrl-torture-") as scratch:
            print(torture(name, options.kills, draw, Path(scratch)), flush=True)


if __name__ == "__main__":
    main()
