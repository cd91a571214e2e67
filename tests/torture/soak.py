"""A suite under random kills of its workers for some minutes, and what memory that takes.

``python tests/torture/soak.py [--minutes N] [--seed N]``. Processes that train, and the workers
above them, are killed at random instants. The suite is carried out again and again: resumed where a
population was killed too often, begun anew in another folder where it is finished. Resident memory
of the launcher and its workers is printed at the start and the end of it, and the growth of the
launcher within one command.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import command
import results

from clrl.storage import record

STEPS = 20_000
"""Of each learner: a suite takes minutes, so that one launcher sees many deaths."""


def main() -> None:
    """Read the command line, and go on until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the draws of instants and victims")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    deadline = time.monotonic() + options.minutes * 60
    kills = finished = commands = 0
    with tempfile.TemporaryDirectory(prefix="clrl-soak-") as folder:
        scratch = Path(folder)
        file = command.suite_file(scratch, steps=STEPS, seeds="0-3")
        while time.monotonic() < deadline:
            out = scratch / f"out-{finished}"
            words = ["suite", file, "--out", out, "--workers", 2, "--checkpoint-minutes", 0.05]
            process = command.start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            commands += 1
            kills += _molest(process, out, draw, deadline, f"command {commands}")
            if process.wait() == 0:
                results.check_files(out)
                finished += 1
            assert process.returncode in (0, 1, 128 + signal.SIGTERM), process.returncode
    print(f"{kills} kills, {commands} commands, {finished} suites finished")


def _molest(
    process: subprocess.Popen[str], out: Path, draw: random.Random, deadline: float, name: str
) -> int:
    """Kill one of a launcher's descendants now and then until it ends; how many were killed.

    From when it trains: a check that is killed three times over ends the command.
    """
    kills, said, before = 0, "", _statuses(out)
    while process.poll() is None and _statuses(out) == before and time.monotonic() < deadline:
        time.sleep(0.1)
    while process.poll() is None:
        time.sleep(draw.uniform(0.5, 6))
        workers = children(process.pid)
        victims = workers + [trainer for worker in workers for trainer in children(worker)]
        now = ", ".join(
            [f"launcher {memory(process.pid):.1f} MB"]
            + [f"worker {memory(worker):.0f} MB" for worker in workers]
        )
        if memory(process.pid) and len(victims) > len(workers):
            if not said:
                print(f"{name}: at the start {now}", flush=True)
            said = now
        if time.monotonic() > deadline:
            process.send_signal(signal.SIGTERM)
            process.wait()
        elif victims:
            try:
                os.kill(draw.choice(victims), signal.SIGKILL)
                kills += 1
            except ProcessLookupError:  # it had come to its end
                pass
    print(f"{name}: at the end {said}; {kills} kills, exit status {process.returncode}", flush=True)
    return kills


def _statuses(out: Path) -> dict[Path, int]:
    """When each run's status was written."""
    return {path: path.stat().st_mtime_ns for path in out.rglob(record.STATUS)}


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def memory(pid: int) -> float:
    """Resident memory of a process, in MB."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(main())
