"""Calls in a process that has seen nothing of this one, as a resumed run's is.

One process with torch loaded waits for calls, and each is made in a fork of it, so that a call
costs hundredths of a second; where processes do not fork, each has a process of its own.
"""

from __future__ import annotations

import atexit
import os
import pickle
import runpy
import subprocess
import sys
import types
from collections.abc import Callable
from typing import IO, Any

from clrl import machine
from clrl.testing.promises import Broken

_server: subprocess.Popen[bytes] | None = None
_inside = False


def elsewhere(function: Callable[..., Any], *args: Any) -> Any:
    """What a function gives in a new process.

    Args:
        function: of a module that can be imported.
        args: what pickle can write.

    Raises:
        Broken: something cannot be found there, or the call fails.
    """
    if _inside:
        raise Broken("a check runs while its file is imported: put it under a main guard")
    try:
        call = pickle.dumps((function, args))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        text = str(error).splitlines()[0]
        raise Broken(
            f"cannot be sent to a new process: {text}; expected it in a module that can be imported"
        ) from error
    import torch

    main = getattr(sys.modules["__main__"], "__file__", None) if b"__main__" in call else None
    job = {
        "call": call,
        "path": list(sys.path),
        "folder": os.getcwd(),
        "main": main,
        "threads": torch.get_num_threads(),
    }
    server = _started()
    assert server.stdin is not None and server.stdout is not None
    _send(server.stdin, pickle.dumps(job))
    answer = _receive(server.stdout)
    if not machine.FORKS or answer is None:
        _stop()
    if answer is None:
        raise Broken("the new process ended without an answer")
    well, value = pickle.loads(answer)
    if not well:
        raise Broken(f"in a new process: {value}")
    return value


def _started() -> subprocess.Popen[bytes]:
    global _server
    if _server is None or _server.poll() is not None:
        code = "from clrl.testing.elsewhere import serve; serve()"
        _server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    return _server


@atexit.register
def _stop() -> None:
    global _server
    if _server is not None:
        _server.communicate()
        _server = None


def _send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(len(content).to_bytes(8, "little") + content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes | None:
    head = pipe.read(8)
    return pipe.read(int.from_bytes(head, "little")) if len(head) == 8 else None


def serve() -> None:
    """Answer calls until there are no more; what they print goes to standard error."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        import torch

        import clrl.agents.supervised
        import clrl.envs  # noqa: F401 - loaded once, for every fork

        torch.optim.SGD([torch.zeros(1)])  # has torch load its compiler: seconds

        while (job := _receive(sys.stdin.buffer)) is not None:
            _send(answers, _in_a_fork(job) if machine.FORKS else _answer(job))


def _in_a_fork(job: bytes) -> bytes:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(_answer(job))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer or pickle.dumps((False, "it ended without an answer"))


def _answer(job: bytes) -> bytes:
    global _inside
    _inside = True
    try:
        asked = pickle.loads(job)
        sys.path[:] = asked["path"]
        os.chdir(asked["folder"])
        import torch

        torch.set_num_threads(asked["threads"])
        if asked["main"]:
            module = types.ModuleType("__main__")
            sys.modules["__main__"] = module
            vars(module).update(runpy.run_path(asked["main"], run_name="__mp_main__"))
        function, args = pickle.loads(asked["call"])
        return pickle.dumps((True, function(*args)))
    except BaseException as error:  # the caller hears of whatever it is
        lines = str(error).strip().splitlines() or ["no message"]
        return pickle.dumps((False, f"{type(error).__name__}: {lines[0]}"))
