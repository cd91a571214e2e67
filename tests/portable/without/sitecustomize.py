"""Imported by every Python process that has this folder on its path: takes names away.

What is left is about what Windows has. The default encoding is not to be relied on there either.
"""

import os
import signal
import socket
import sys
import warnings

for _name in ("fcntl", "resource"):
    sys.modules[_name] = None  # type: ignore[assignment]  # as if there were none
for _module, _names in (
    (os, ("sched_getaffinity", "sched_setaffinity", "fork", "forkpty")),
    (signal, ("SIGUSR1", "SIGHUP", "pthread_sigmask")),
    (socket, ("send_fds", "recv_fds")),
):
    for _name in _names:
        delattr(_module, _name)
if hasattr(os, "process_cpu_count"):  # since Python 3.13, out of what is gone
    os.process_cpu_count = os.cpu_count

warnings.filterwarnings("error", category=EncodingWarning, module=r"clrl(\.|$)")
