"""The command line: listing, training, resuming, reporting, TensorBoard, benchmarks.

Exit status: 0 when all went well, 1 when a run failed or something could not be written, 2 for a
user's mistake, 128 and the signal's number after one that asked for an end (130 after Ctrl-C).
Nothing heavy is imported before it is known to be needed.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

from annotated_types import Ge, Le

from clrl import machine
from clrl.cli.play import PlayArguments, play
from clrl.errors import StorageError, UsageError
from clrl.launch.options import LaunchOptions
from clrl.options import PositiveInt
from clrl.registry import Entry
from clrl.report import Format
from clrl.settings.values import Place, build, suggestion
from clrl.version import __version__

if TYPE_CHECKING:
    from clrl.launch.crew import Crew
    from clrl.suites import Suite

T = TypeVar("T")

FAILED = 1
MISTAKE = 2
INTERRUPTED = 130
TABLES = {
    "benchmarks": "clrl.benchmarks:BENCHMARKS",
    "changes": "clrl.changes:CHANGES",
    "schedules": "clrl.changes:SCHEDULES",
    "agents": "clrl.agents.table:AGENTS",
    "optimizers": "clrl.agents.optim.table:OPTIMIZERS",
    "addons": "clrl.agents.optim.table:ADDONS",
    "penalties": "clrl.agents.penalties.table:PENALTIES",
    "consolidation": "clrl.agents.consolidation.table:CONSOLIDATION",
    "networks": "clrl.agents.table:NETWORKS",
    "metrics": "clrl.metrics.table:METRICS",
}
KINDS = (*TABLES, "suites")
_WITH_OPTIONS = ("changes", "schedules")
"""Kinds that no --help shows the options of: the list does."""


@dataclass(frozen=True)
class ListArguments:
    """Show what can be named.

    Attributes:
        kind: which table; all of them unless given.
        json: print JSON.
    """

    kind: str = field(
        default="all", metadata={"positional": True, "metavar": "{" + ",".join(KINDS) + "}"}
    )
    json: bool = field(default=False, metadata={"switch": True})


@dataclass(frozen=True)
class SuiteArguments(LaunchOptions):
    """Carry out a suite; what is finished is not done again, what was interrupted goes on.

    Attributes:
        suite: a suite's name (see clrl list suites) or a YAML file.
        out: the folder for results; runs/NAME unless given.
        seeds: seeds in place of the suite's, such as 0-9 or 0,2,5-7.
        steps: of each learner, in place of the suite's.
        learners: these alone; the name of a sweep stands for all its settings.
        benchmarks: these alone.
        metrics: functions of your own to measure besides, as package.module:function.
        with_scratch: add for each learner one that is made new with every task.
    """

    suite: str = field(kw_only=True, metadata={"positional": True, "metavar": "NAME|FILE"})
    out: str | None = field(default=None, metadata={"metavar": "DIR"})
    seeds: str | None = field(default=None, metadata={"metavar": "SEEDS"})
    steps: PositiveInt | None = field(default=None, metadata={"metavar": "WHOLE"})
    learners: tuple[str, ...] = field(default=(), metadata={"metavar": "LABEL ..."})
    benchmarks: tuple[str, ...] = field(default=(), metadata={"metavar": "LABEL ..."})
    metrics: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME ..."})
    with_scratch: bool = field(default=False, metadata={"switch": True})


@dataclass(frozen=True)
class ShowArguments:
    """Show what would be run, every setting of it, and where each comes from.

    Attributes:
        suite: a suite's name or a YAML file; or the word run, and after it options of clrl run.
    """

    suite: str = field(metadata={"positional": True, "metavar": "NAME|FILE|run"})


@dataclass(frozen=True)
class ResumeArguments(LaunchOptions):
    """Do what is left of the runs in a folder, each from its last checkpoint.

    Attributes:
        folder: the folder of a suite or a run.
    """

    folder: str = field(kw_only=True, metadata={"positional": True, "metavar": "DIR"})


@dataclass(frozen=True)
class ReportArguments:
    """Write a report about a suite's folder, finished or not: what came out, and how sure it is.

    Attributes:
        folder: the suite's folder; several, or a folder of such, are compared side by side.
        format: any of html, pdf, png (figures), csv, parquet (all numbers), json, latex (tables).
        out: where to; DIR/report unless given.
        show: metrics of networks to show beside the usual ones, such as dormant_units.
    """

    folder: tuple[str, ...] = field(metadata={"positional": True, "metavar": "DIR ..."})
    format: tuple[Format, ...] = field(default=("html",), metadata={"metavar": "FORMAT ..."})
    out: str | None = field(default=None, metadata={"metavar": "DIR"})
    show: tuple[str, ...] = field(default=(), metadata={"metavar": "METRIC ..."})


@dataclass(frozen=True)
class TensorBoardArguments:
    """Show curves in TensorBoard, to this machine alone.

    Attributes:
        folder: the folder of a suite or a run, or a folder of such; several go side by side.
        port: where TensorBoard listens.
        single: show every seed, also where there are so many that TensorBoard opens empty.
    """

    folder: tuple[str, ...] = field(
        default=("runs",), metadata={"positional": True, "metavar": "DIR ..."}
    )
    port: Annotated[int, Ge(1), Le(65535)] = field(default=6006, metadata={"metavar": "PORT"})
    single: bool = field(default=False, metadata={"switch": True})


@dataclass(frozen=True)
class BitsArguments:
    """Show how this processor computes seeds side by side, and which products a seed does apart."""


@dataclass(frozen=True)
class BenchArguments:
    """Measure speed against what a plain user has: PyTorch loops, Gymnasium, Stable-Baselines3.

    Attributes:
        what: what to measure.
        device: of ppo: measure populations of growing size there, in place of the comparison.
    """

    what: Literal["streams", "envs", "ppo"] = field(
        default="streams", metadata={"positional": True}
    )
    device: Literal["cpu", "cuda"] | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line.

    Args:
        argv: the arguments; the process's own unless given.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except UsageError as error:
        complain(str(error))
        return MISTAKE
    except StorageError as error:
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `clrl list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as end:  # after printing help
        return int(end.code or 0)


def complain(message: str) -> None:
    """Print one line of error."""
    print("clrl: error:", " ".join(message.split()), file=sys.stderr)


def _dispatch(words: list[str]) -> int:
    commands: dict[str, tuple[Callable[[list[str]], int], str]] = {
        "list": (list_command, "show what can be named"),
        "show": (show_command, "show what would be run, and where each setting comes from"),
        "run": (run_command, "train one learner on one benchmark, over seeds"),
        "suite": (suite_command, "carry out a table of runs"),
        "resume": (resume_command, "do what is left in a folder"),
        "report": (report_command, "write a report about a folder"),
        "tensorboard": (tensorboard_command, "show the curves of a folder"),
        "play": (play_command, "try, watch or record what a run has learned"),
        "bench": (bench_command, "measure speed"),
        "bits": (bits_command, "look at how this processor treats seeds side by side"),
    }
    if not words or words[0] in ("-h", "--help"):
        print("usage: clrl COMMAND [OPTIONS]\n")
        for name, (_, summary) in commands.items():
            print(f"  {name:<12} {summary}")
        print("\nclrl COMMAND --help shows a command's options; clrl --version the version.")
        return 0
    if words[0] == "--version":
        print(f"clrl {__version__}")
        return 0
    if words[0] not in commands:
        known = [*commands, "--help", "--version"]
        raise UsageError(f"unknown command {words[0]!r}; {suggestion(words[0], known)}")
    return commands[words[0]][0](words[1:])


def _read(spec: type[T], argv: list[str], command: str) -> T:
    """Read and check the options of a command without choices."""
    from clrl.cli import arguments  # loads tyro

    given = arguments.parse(spec, argv, f"clrl {command}")
    return cast(T, build(spec, given, Place()))


def list_command(argv: list[str]) -> int:
    """``clrl list``."""
    options = _read(ListArguments, argv, "list")
    if options.kind not in (*KINDS, "all"):
        raise UsageError(f"unknown kind {options.kind!r}; {suggestion(options.kind, [*KINDS])}")
    listed = {
        kind: _rows(kind, options.kind == kind) for kind in KINDS if options.kind in (kind, "all")
    }
    if options.json:
        print(json.dumps(listed, indent=2))
        return 0
    for kind, rows in listed.items():
        if options.kind == "all":
            print(f"{kind}:")
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            origin = "" if row["source"] == "built in" else f" [{row['source']}]"
            print(f"  {row['name']:<{width}}  {row['summary']}{origin}")
    return 0


def _rows(kind: str, alone: bool) -> list[dict[str, str]]:
    """What a kind has; asked for alone, changes and schedules show their options."""
    if kind == "suites":
        from clrl.settings import suite_files

        return [
            {
                "name": name,
                "summary": " ".join(str(suite_files.read(name)[1].get("description", "")).split()),
                "source": "built in",
            }
            for name in suite_files.names()
        ]
    module, _, name = TABLES[kind].partition(":")
    return [
        {
            "name": entry.name,
            "summary": entry.summary + (_options(entry) if alone and kind in _WITH_OPTIONS else ""),
            "source": entry.source,
        }
        for entry in getattr(importlib.import_module(module), name)
    ]


def _options(entry: Entry) -> str:
    """The options of an entry in brackets, with their defaults; nothing where there are none."""
    shown = [
        field.name if field.default is dataclasses.MISSING else f"{field.name}={field.default}"
        for field in dataclasses.fields(entry.options_type())
        if field.init
    ]
    return f" ({', '.join(shown)})" if shown else ""


def show_command(argv: list[str]) -> int:
    """``clrl show``."""
    from clrl import suites
    from clrl.cli import show
    from clrl.cli.choices import read_run

    if argv[:1] == ["run"]:
        config, options = read_run(argv[1:])
        table = suites.single(config, options.seeds, options.label, options.settings)
        out = options.out or f"runs/{next(iter(table.benchmarks))}"
        lines = show.lines_of_run(options.origins, table, out)
    else:
        chosen = _read(ShowArguments, argv, "show")
        lines = show.lines_of_suite(suites.load(chosen.suite))
    for line in lines:
        print(line)
    return 0


def run_command(argv: list[str]) -> int:
    """``clrl run``."""
    from clrl import suites
    from clrl.cli.choices import read_run

    config, options = read_run(argv)
    table = suites.single(config, options.seeds, options.label, options.settings)
    out = options.out or f"runs/{next(iter(table.benchmarks))}"
    return _carry_out(table, Path(out), options.how)


def suite_command(argv: list[str]) -> int:
    """``clrl suite``."""
    from clrl import suites

    options = _read(SuiteArguments, argv, "suite")
    overrides = {
        "seeds": options.seeds,
        "steps": options.steps,
        "metrics": list(options.metrics) or None,
    }
    table = suites.load(
        options.suite, {key: value for key, value in overrides.items() if value is not None}
    )
    table = suites.chosen(table, options.learners, options.benchmarks)
    if options.with_scratch:
        table = suites.with_scratch(table)
    if table.sweeps or table.scratch_of:
        print(table.summary(), file=sys.stderr)
    return _carry_out(table, Path(options.out or f"runs/{table.name}"), options)


def resume_command(argv: list[str]) -> int:
    """``clrl resume``."""
    from clrl import suites

    options = _read(ResumeArguments, argv, "resume")
    folder = Path(options.folder)
    return _carry_out(suites.of_folder(folder), folder, options)


def _carry_out(table: Suite, out: Path, how: LaunchOptions) -> int:
    from rich.console import Console

    from clrl import suites
    from clrl.launch import crew_of
    from clrl.launch.supervisor import Interrupted
    from clrl.report.forgetting import write_pictures
    from clrl.report.table import print_failures, print_tables

    crew = crew_of(how, out)
    if how.dry_run:
        return _show_plan(table, out, crew, how)
    try:
        failures = suites.carry_out(
            table,
            out,
            Console(stderr=True),
            crew,
            how.keeping,
            how.members,
            how.force,
            how.device,
            how.log,
        )
    except Interrupted as asked:
        complain(
            f"{asked}: {asked.how}; the same command, or clrl resume {out}, goes on from there"
        )
        return 128 + asked.signal
    print_tables(out)
    for picture in write_pictures(out):
        print(f"Forgetting: {picture}")
    print(f"Report: clrl report {shlex.quote(str(out))}")
    print(f"Curves: clrl tensorboard {shlex.quote(str(out))}")
    print(f"Files:  {out}/BENCHMARK/LEARNER/seed-K/metrics.jsonl")
    for message in dict.fromkeys(failure.message for failure in failures if failure.mistake):
        complain(message)
    failed = [failure for failure in failures if not failure.mistake]
    if failed:
        complain(f"failed, with more in each run's error.txt; clrl resume {out} tries again")
        print_failures([(one.label, one.seeds, one.message) for one in failed])
    if not failures:
        return 0
    return FAILED if failed else MISTAKE


def _show_plan(table: Suite, out: Path, crew: Crew[Any], how: LaunchOptions) -> int:
    from clrl import suites
    from clrl.report.table import print_plan

    workers = crew.size
    planned = suites.plan(table, out, crew, how.members, how.force, how.device)
    print_plan(
        [(job.label, list(job.folders), job.resumes, hours) for job, hours in planned],
        f"{how.launcher}, {'a job each' if crew.elastic else f'workers: {workers}'}",
        1 if crew.elastic else workers,
    )
    return 0


def report_command(argv: list[str]) -> int:
    """``clrl report``."""
    options = _read(ReportArguments, argv, "report")
    from clrl.report.export import write

    out = None if options.out is None else Path(options.out)
    first, *beside = map(Path, options.folder)
    for path in write(first, options.format, out, beside, options.show):
        print(path)
    return 0


def tensorboard_command(argv: list[str]) -> int:
    """``clrl tensorboard``: writes means over seeds and becomes TensorBoard's own program."""
    from clrl.storage.record import EVENTS

    options = _read(TensorBoardArguments, argv, "tensorboard")
    folders = list(map(Path, options.folder))
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: expected a folder with runs; there is no such folder")
        if next(folder.rglob(EVENTS + "*"), None) is None:
            raise UsageError(f"{folder}: expected a folder with runs; it holds no event files")
    try:
        socket.create_server(("127.0.0.1", options.port)).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise UsageError(f"--port {options.port}: {reason}; choose another --port") from error
    from clrl.report import board

    try:
        for remark in board.write(*folders):
            print(remark, file=sys.stderr)
    except OSError as error:
        print(f"no means over seeds: {error}", file=sys.stderr)
    if not options.single and board.crowded(folders) and board.means(folders):
        folders = board.means(folders)
        print(
            "means over seeds, since TensorBoard opens empty with so many runs; --single adds them"
        )
    address = f"http://127.0.0.1:{options.port}/"
    print(f"{address}?{board.QUERY}#timeseries   (Ctrl-C ends it)")
    print(f"means over seeds: {address}#custom_scalars   settings: {address}#hparams", flush=True)
    command = [sys.executable, "-P", "-m", "tensorboard.main", *board.where(folders)]
    machine.become([*command, "--host", "127.0.0.1", "--port", str(options.port)])


def bits_command(argv: list[str]) -> int:
    """``clrl bits``."""
    _read(BitsArguments, argv, "bits")
    from clrl.bench import bits

    bits.main()
    return 0


def play_command(argv: list[str]) -> int:
    """``clrl play``."""
    options = _read(PlayArguments, argv, "play")
    play(options, functools.partial(print, flush=True))
    return 0


def bench_command(argv: list[str]) -> int:
    """``clrl bench``."""
    options = _read(BenchArguments, argv, "bench")
    if options.device and options.what != "ppo":
        raise UsageError(f"--device: expected it with ppo, got {options.what}")
    bench = importlib.import_module(f"clrl.bench.{options.what}")
    bench.main(*([options.device] if options.device else []))
    return 0
