"""What operating systems do in ways of their own: cores, limits, locks, signals, processes.

Linux comes first: there a worker forks, signals can be held, and the C library is told to keep
memory. Whatever is missing elsewhere has another way here, by which results are the same: no
other module asks which system it is on. What few functions need they import themselves, since
`clrl list` waits for this module.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

STOPPING: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)
"""The signals that ask for an end: those of them that the system has."""

FORKS = sys.platform == "linux" and hasattr(os, "fork") and hasattr(signal, "pthread_sigmask")
"""Whether a process that has loaded torch can have children by forking. macOS knows the call, but
its libraries do not survive it."""

BINARY: int = getattr(os, "O_BINARY", 0)
"""For ``os.open``: bytes as they are, which goes without saying but on Windows."""

_PR_SET_PDEATHSIG = 1  # prctl(2)
# glibc's names for what `mallopt` sets (malloc.h).
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
MMAP_THRESHOLD = 2**25  # the largest that every glibc accepts
TRIM_THRESHOLD = 2**30
_SECRET = 32  # bytes
_MOMENT = 1.0  # seconds for which a file that is open elsewhere is tried again


class Taken(Exception):
    """Somebody else holds a lock."""


# Cores, limits and memory.


def cores() -> int:
    """The cores that this process may use; all that there are where a system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name, as well as the system knows it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor()


def open_many_files() -> None:
    """Let this process have as many files open as the system allows, where there is a limit."""
    try:
        import resource
    except ImportError:
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # a system may say more than it allows
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def keep_freed_memory() -> None:
    """Have glibc keep memory that is freed; other C libraries do as they do."""
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, TRIM_THRESHOLD)


# Files.


@contextlib.contextmanager
def locked(path: Path, patience: float) -> Iterator[int | None]:
    """Hold the lock of a file, which is made where it is missing, and stays.

    The lock is the kernel's: it is free again as soon as its holders are gone, however they went.
    Where Python has no ``flock``, SQLite takes it, which knows the locks of every system.

    Args:
        path: the file.
        patience: seconds for which a lock that is taken is tried again.

    Yields:
        A file descriptor: a process that inherits it holds the lock as well. None where the lock
        is this process's alone.

    Raises:
        Taken: it is held by somebody else.
        OSError: the file cannot be had.
    """
    try:
        import fcntl
    except ImportError:
        with _locked_by_sqlite(path, patience):
            yield None
        return
    lock = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Taken from None
                time.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


@contextlib.contextmanager
def _locked_by_sqlite(path: Path, patience: float) -> Iterator[None]:
    """Hold the exclusive lock of an empty database, to which nothing is ever written."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(path, timeout=patience, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise Taken from None
            raise OSError(errno.EACCES, str(error)) from error
        yield


def replace(source: Path, target: Path) -> None:
    """Give a file another's name; on Windows, once nobody has that other open."""
    deadline = time.monotonic() + _MOMENT
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if os.name != "nt" or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut, where folders can be opened."""
    if os.name == "nt":
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


# Signals.


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Inside, signals that ask for an end wait, also for processes that are started there."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hold_signals() -> None:
    """Have signals that ask for an end wait from now on."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def let_signals_in() -> None:
    """Have signals that ask for an end arrive, those that waited included."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


# Processes.


def start(
    command: Sequence[str], environment: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process with signals held, and be connected with it.

    Args:
        command: what to start; a word for `connected` is added to it.
        environment: the process's variables.

    Returns:
        The process and this end of the connection, which is closed where the process has ended
        before it could connect.
    """
    with signals_held():  # which the process inherits
        if not hasattr(socket, "send_fds"):
            return _start_and_wait(command, environment)
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        return process, ours


def _start_and_wait(
    command: Sequence[str], environment: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """`start` where no sockets are handed to processes: on Windows.

    The process calls back on this machine's own network, and shows a secret that it was given.
    It is in a group of its own, so that Ctrl-C does not reach it.
    """
    import hmac
    import secrets

    secret = secrets.token_bytes(_SECRET)
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = subprocess.Popen(
            [*command, f"127.0.0.1:{server.getsockname()[1]}"],
            env=environment,
            stdin=subprocess.PIPE,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin as to:
            to.write(secret)
        server.settimeout(0.1)
        while process.poll() is None:
            with contextlib.suppress(OSError):
                way, _ = server.accept()
                way.settimeout(1.0)
                if hmac.compare_digest(way.recv(_SECRET, socket.MSG_WAITALL), secret):
                    way.settimeout(None)
                    return process, way
                way.close()
    ours, theirs = socket.socketpair()
    theirs.close()
    return process, ours


def connected(word: str) -> int:
    """The other end of what `start` returns: a socket's handle, from the command's last word.

    Raises:
        ConnectionError: who started this process is gone.
    """
    host, _, port = word.rpartition(":")
    if not host:
        return int(word)
    way = socket.create_connection((host, int(port)))
    way.sendall(sys.stdin.buffer.read(_SECRET))
    return way.detach()


def die_with_parent() -> None:
    """Be killed when the parent is, where that can be had."""
    if FORKS:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def exists(process: int) -> bool:
    """Whether a process that was forked is still there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def tell(process: int, number: signal.Signals) -> None:
    """Send a signal to a process that was forked; nothing where it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def become(command: Iterable[str]) -> NoReturn:
    """Have another program take the place of this one, or be waited for by it on Windows."""
    words = list(command)
    if os.name != "nt":
        os.execv(words[0], words)
    with subprocess.Popen(words) as process:
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # which the program gets as well
                sys.exit(process.wait())
