"""Workers on a Ray cluster: each an actor with one CPU, on whatever node Ray finds it.

An actor runs a worker process of its own as `clrl.launch.local` does, and passes messages on,
so that a population is trained on a cluster as it is here. Where a node does not see the
suite's folder, the actor works in a temporary one, and the files come back with the messages:
whenever there is a new checkpoint, and at the end.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from clrl import machine
from clrl.errors import UsageError
from clrl.launch.crew import Gone
from clrl.launch.local import LocalCrew
from clrl.storage import checkpoint, files
from clrl.storage.provenance import PACKAGES, Provenance, provenance
from clrl.storage.record import EVENTS, METRICS

_REACH = 5.0  # seconds in which an address has to answer
_LISTEN = 1.0  # seconds for which an actor waits for something to pass on
_CARRIED = (METRICS, checkpoint.NAME, checkpoint.PREVIOUS)

Contents = Mapping[str, bytes]
"""File name to content, of one run's folder."""


class Seat:
    """A worker on some node. To be made a Ray actor that serves several calls at once.

    Args:
        here: the launcher's current folder, where plug-ins may be.
        token: a file that the launcher sees.
    """

    def __init__(self, here: str, token: str) -> None:
        with contextlib.suppress(OSError):  # another machine, which has no such folder
            os.chdir(here)
        self._shared = Path(token).exists()
        self._crew = LocalCrew(1)
        self._worker = self._crew.start()
        self._folders: dict[int, Path] = {}
        self._kept: float | None = None

    def introduce(self) -> tuple[Provenance, bool]:
        """What is installed there, and whether the launcher's files are seen."""
        return provenance(), self._shared

    def send(self, request: tuple[Any, ...], carried: Mapping[int, Contents]) -> None:
        """Pass a request on; the files carried are put into a temporary folder before."""
        if request[0] == "train" and not self._shared:
            kind, plain, terms = request
            self._folders = _unpacked(carried)
            self._kept = None
            request = (kind, plain, replace(terms, folders=self._folders))
        self._worker.send(request)

    def receive(self) -> list[tuple[str, Any]]:
        """The messages that there are, after a moment at most."""
        messages: list[tuple[str, Any]] = []
        seconds = _LISTEN
        while self._crew.wait([self._worker], seconds):
            seconds = 0.0
            try:
                messages += self._worker.receive()
            except Gone as gone:
                messages.append(("gone", str(gone)))
                break
        ended = any(kind not in ("progress", "remark") for kind, _ in messages)
        if self._folders and (ended or self._is_kept_anew()):
            carried = {seed: _packed(folder) for seed, folder in self._folders.items()}
            messages.insert(0, ("files", carried))
            if ended:
                shutil.rmtree(next(iter(self._folders.values())).parent)
                self._folders = {}
        return messages

    def _is_kept_anew(self) -> bool:
        path = next(iter(self._folders.values())) / checkpoint.NAME
        before, self._kept = self._kept, path.stat().st_mtime if path.exists() else None
        return self._kept != before

    def interrupt(self) -> None:
        """Ask the population in training for a last checkpoint."""
        self._worker.interrupt()


class RayWorker:
    """A worker on a cluster; see `clrl.launch.crew.Worker`.

    Args:
        seat: the actor.
    """

    def __init__(self, seat: Any) -> None:
        self._seat = seat
        self._shared: bool | None = None  # not known before the actor has introduced itself
        self._request: tuple[Any, ...] | None = None  # waits for that
        self._folders: Mapping[int, Path] = {}
        self.future = seat.introduce.remote()

    def send(self, request: tuple[Any, ...]) -> None:
        """See `clrl.launch.crew.Worker.send`."""
        if self._shared is None:
            self._request = request
            return
        carried: dict[int, Contents] = {}
        if request[0] == "train":
            self._folders = request[2].folders
            if not self._shared:
                carried = {seed: _packed(folder) for seed, folder in self._folders.items()}
        self._seat.send.remote(request, carried)

    def receive(self) -> list[tuple[str, Any]]:
        """See `clrl.launch.crew.Worker.receive`; to be called when the future is there."""
        ray = _ray()
        try:
            answer = ray.get(self.future)
        except ray.exceptions.RayActorError:
            raise Gone("its node or process is lost") from None
        except ray.exceptions.RayError as error:
            return [("error", f"{error}")]
        messages: list[tuple[str, Any]] = []
        if self._shared is None:
            there, self._shared = answer
            different = _differences(there)
            if different:
                return [("mistake", different)]
            if self._request:
                self.send(self._request)
        else:
            messages = answer
        self.future = self._seat.receive.remote()
        for kind, answer in messages:
            if kind == "gone":
                raise Gone(answer)
            if kind == "files":
                for seed, contents in answer.items():
                    _write(self._folders[seed], contents)
        return [message for message in messages if message[0] != "files"]

    def interrupt(self) -> None:
        """See `clrl.launch.crew.Worker.interrupt`."""
        self._seat.interrupt.remote()

    def end(self) -> None:
        """Give the place back."""
        _ray().kill(self._seat)


class RayCrew:
    """Workers on a Ray cluster; see `clrl.launch.crew.Crew`.

    Args:
        size: how many can work side by side; as many as the cluster has CPUs unless given.
        address: of a cluster, such as ``10.0.0.1:6379``; None starts Ray on this machine.
        out: the suite's folder.

    Raises:
        UsageError: Ray is not installed, or does not answer at the address.
    """

    elastic = False

    def __init__(self, size: int | None, address: str | None, out: Path) -> None:
        ray = _ray()
        if address is not None:
            _reach(address)
        own = {} if address else {"num_cpus": size or machine.cores(), "include_dashboard": False}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UsageError(f"--launcher ray: {reason}") from error
        self.size = size or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._seats = ray.remote(num_cpus=1, max_concurrency=4)(Seat)
        self._token = _token(out)
        self._started: list[RayWorker] = []

    def start(self) -> RayWorker:
        """See `clrl.launch.crew.Crew.start`."""
        worker = RayWorker(self._seats.remote(os.getcwd(), self._token.name))
        self._started.append(worker)
        return worker

    def wait(self, workers: Sequence[RayWorker], seconds: float) -> list[RayWorker]:
        """See `clrl.launch.crew.Crew.wait`."""
        ray = _ray()
        by_future = {worker.future: worker for worker in workers}
        first, rest = ray.wait(list(by_future), timeout=seconds)
        more = ray.wait(rest, num_returns=len(rest), timeout=0)[0] if first and rest else []
        return [by_future[future] for future in [*first, *more]]

    def end(self, workers: Sequence[RayWorker] | None = None) -> None:
        """See `clrl.launch.crew.Crew.end`."""
        for worker in list(self._started if workers is None else workers):
            worker.end()
            self._started.remove(worker)
        if workers is None:
            self._token.close()
            _ray().shutdown()

    def batch(self) -> AbstractContextManager[None]:
        """See `clrl.launch.crew.Crew.batch`."""
        return contextlib.nullcontext()

    def hold(self, lock: int) -> None:
        """Nothing: actors end with their launcher."""


def _ray() -> Any:
    """Ray.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise UsageError("--launcher ray: Ray is missing: pip install 'clrl[ray]'") from error


def _token(out: Path) -> Any:
    """A file beside the suite's folder, by which a node shows whether it sees the folder."""
    beside = next(path for path in out.absolute().parents if path.is_dir())
    return tempfile.NamedTemporaryFile(dir=beside, prefix=".clrl-")  # noqa: SIM115


def _reach(address: str) -> None:
    """See whether somebody answers at an address, which Ray itself takes minutes to find out."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--address: expected HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host, int(port)), _REACH).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--address {address}: nobody answers there: {error}") from error


def _differences(there: Provenance) -> str:
    """One line where a node has other versions than the launcher."""
    here = provenance()
    different = [
        f"{name} {there.get(name) or 'none'} (here {here[name] or 'none'})"
        for name in PACKAGES
        if there.get(name) != here[name]
    ]
    if not different:
        return ""
    return f"--launcher ray: the worker on {there.get('machine')} has {', '.join(different)}"


def _packed(folder: Path) -> Contents:
    """What of a run's folder decides how it goes on, and what there is to see."""
    paths = [folder / name for name in _CARRIED] + list(folder.glob(EVENTS + "*"))
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _unpacked(carried: Mapping[int, Contents]) -> dict[int, Path]:
    """Temporary folders with the files in them, a seed each."""
    home = Path(tempfile.mkdtemp(prefix="clrl-"))
    folders = {seed: home / f"seed-{seed}" for seed in carried}
    for seed, folder in folders.items():
        folder.mkdir()
        _write(folder, carried[seed])
    return folders


def _write(folder: Path, contents: Contents) -> None:
    for name, content in contents.items():
        if name not in _CARRIED and not name.startswith(EVENTS):
            raise ValueError(f"a worker sent {name!r}, which no run has")
        files.write_atomically(folder / Path(name).name, content)
    for path in folder.glob(EVENTS + "*"):
        if path.name not in contents:
            path.unlink()
