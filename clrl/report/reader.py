"""A process that reads runs for another: ``python -m clrl.report.reader``.

What to read comes pickled on standard input, the runs go pickled to standard output. Python's own
pools would have every script that makes a report guard its main module.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from clrl.report.runs import Run, Work, read_run


def read_runs(work: Sequence[Work], processes: int) -> list[Run]:
    """Read runs in so many processes, and return them in the same order.

    Raises:
        subprocess.CalledProcessError: a process ended before its work was done.
    """
    if processes < 2:
        return [read_run(one) for one in work]
    with ThreadPoolExecutor(processes) as threads:
        parts = list(threads.map(_elsewhere, [work[i::processes] for i in range(processes)]))
    return [parts[i % processes][i // processes] for i in range(len(work))]


def _elsewhere(work: Sequence[Work]) -> list[Run]:
    command = [sys.executable, "-P", "-m", "clrl.report.reader"]
    done = subprocess.run(command, input=pickle.dumps(work), stdout=subprocess.PIPE, check=True)
    runs: list[Run] = pickle.loads(done.stdout)
    return runs


if __name__ == "__main__":
    found = [read_run(one) for one in pickle.load(sys.stdin.buffer)]
    sys.stdout.buffer.write(pickle.dumps(found))
