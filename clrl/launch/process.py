"""How a process that trains is set up: one thread, and memory that stays."""

from __future__ import annotations

from clrl import machine
from clrl.storage.provenance import THREADS


def set_up() -> None:
    """Prepare this process for training; call it before the first tensor is made.

    As many open files as the system lets a process have: a run has two, and a population a
    thousand runs, while the limit that processes start with is often 1,024.

    One torch thread: on few cores more threads cost more than they give, and the number of
    threads changes the bits of a result.

    Numbers so small that they have no exponent of their own (denormal, below 1e-38) count as 0: an
    operation on them takes some forty times as long on an Intel Xeon, and averages that decay end
    there. torch sets it for one thread, the one that calls.

    Every step allocates and frees temporaries of a megabyte or so. glibc hands such memory
    back to the kernel at once, which then clears it page by page for the next step: that
    took up to half the time of a step. Here freed memory stays with the process.
    """
    import torch

    torch.set_num_threads(THREADS)
    torch.set_flush_denormal(True)
    machine.open_many_files()
    machine.keep_freed_memory()
