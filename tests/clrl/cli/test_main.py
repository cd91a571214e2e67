"""The command line as a user meets it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

import clrl
from clrl.cli import arguments
from clrl.cli.choices import read_run
from clrl.cli.main import KINDS, main
from clrl.errors import UsageError
from clrl.launch.options import LaunchOptions
from clrl.report import page
from clrl.report.results import read
from clrl.storage import record

PLUGINS = Path(__file__).parents[2] / "plugin_example"
SLOW = pytest.mark.slow

TINY = """
benchmark: {name: permuted-digits, task_length: 20}
network: {name: mlp, widths: [4]}
steps: 40
log_every: 20
learners:
  sgd: {optimizer: sgd}
"""


def call(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``clrl`` as its own process."""
    return subprocess.run(
        [sys.executable, "-P", "-c", "import sys; from clrl.cli.main import main; sys.exit(main())"]
        + list(words),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def tree(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


class TestList:
    def test_everything(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["list"]) == 0
        printed = capsys.readouterr().out
        for word in ("benchmarks:", "permuted-mnist", "upgd", "continual-backprop", "mlp"):
            assert word in printed
        for word in ("effective_rank", "suites:", "quickstart"):
            assert word in printed

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_kind_as_json(self, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["list", kind, "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        assert list(listed) == [kind]
        assert listed[kind]
        for row in listed[kind]:
            assert set(row) == {"name", "summary", "source"}
            assert row["name"]
            assert row["summary"]
            assert row["source"] == "built in"


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["list", "--json"],
        ["--help"],
        ["--version"],
        ["list", "--help"],
        ["run", "--help"],
        ["run", "--optimizer", "upgd", "--addons", "continual-backprop", "--help"],
        ["suite", "--help"],
        ["tensorboard", "--help"],
        ["play", "--help"],
        ["bench", "--help"],
    ],
)
def test_listing_and_help_import_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from clrl.cli.main import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'sklearn', 'scipy', 'tensorboard', 'mujoco', 'Box2D', 'pydantic'};"
        "print(sorted(heavy & set(sys.modules)), status, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr == "[] 0\n"
    assert done.stdout


class TestHelp:
    @pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
    def test_names_the_commands(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(words) == 0
        printed = capsys.readouterr().out
        for command in ("list", "run", "suite", "tensorboard", "bench"):
            assert f"  {command} " in printed

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"clrl {clrl.__version__}\n"

    @pytest.mark.parametrize(
        ("words", "shown", "hidden"),
        [
            ([], ["--optimizer.momentum", "--network.widths"], ["--optimizer.sigma"]),
            (["--optimizer", "upgd"], ["--optimizer.sigma"], ["--optimizer.momentum"]),
            (["--optimizer=upgd"], ["--optimizer.sigma"], ["--optimizer.momentum"]),
            (
                ["--optimizer", "continual-backprop", "--optimizer.base", "adam"],
                ["--optimizer.replacement-rate", "--optimizer.betas", "--optimizer.base"],
                ["--optimizer.momentum"],
            ),
            (
                ["--addons", "shrink-and-perturb", "continual-backprop"],
                ["--addons.shrink-and-perturb.shrink", "--addons.continual-backprop.decay-rate"],
                [],
            ),
            (["--benchmark", "slow-regression"], ["--benchmark.change"], ["--benchmark.input"]),
        ],
    )
    def test_shows_the_options_of_what_is_chosen(
        self,
        words: list[str],
        shown: list[str],
        hidden: list[str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert main(["run", *words, "--help"]) == 0
        printed = capsys.readouterr().out
        assert all(option in printed for option in shown)
        assert not any(option in printed for option in hidden)
        assert "object at" not in printed


class TestReadRun:
    def test_every_spelling(self) -> None:
        config, options = read_run(
            ["--optimizer=upgd", "--optimizer.lr", "1e-3", "--optimizer.weight_decay=0"]
            + ["--optimizer.beta-utility", ".5", "--network.widths", "3", "1e1"]
            + ["--network.layer-norm", "true", "--steps", "1e3", "--log_every", "10"]
            + ["--seeds", "0-2", "--out", "o", "--workers", "2", "--force"]
            + ["--checkpoint-minutes", "0.5", "--checkpoint-steps", "1e3"]
        )
        assert config.optimizer.name == "upgd"
        upgd = config.optimizer.options
        assert (upgd.lr, upgd.weight_decay, upgd.beta_utility) == (1e-3, 0.0, 0.5)
        assert config.network.options.widths == (3, 10)
        assert config.network.options.layer_norm is True
        assert (config.steps, config.log_every) == (1000, 10)
        assert (options.seeds, options.out) == ("0-2", "o")
        assert options.how == LaunchOptions(
            workers=2, checkpoint_minutes=0.5, checkpoint_steps=1000, force=True
        )

    def test_nothing_gives_the_defaults(self) -> None:
        config, options = read_run([])
        assert (config.optimizer.name, config.addons) == ("sgd", ())
        assert (options.seeds, options.out, options.how) == ("0", None, LaunchOptions())

    def test_addons(self) -> None:
        config, _ = read_run(
            ["--addons", "continual-backprop", "shrink-and-perturb", "--optimizer", "adam"]
            + ["--addons.continual-backprop.replacement_rate", "0.5"]
            + ["--addons.shrink-and-perturb.every", "3"]
        )
        assert config.optimizer.name == "adam"
        cbp, shrink = config.addons
        assert (cbp.name, cbp.options.replacement_rate) == ("continual-backprop", 0.5)
        assert (shrink.name, shrink.options.every) == ("shrink-and-perturb", 3)

    def test_an_addon_as_the_optimizer(self) -> None:
        config, _ = read_run(
            ["--optimizer", "continual-backprop", "--optimizer.base", "adam"]
            + ["--optimizer.lr", "0.5", "--optimizer.maturity-threshold", "7"]
        )
        assert (config.optimizer.name, config.optimizer.options.lr) == ("adam", 0.5)
        assert config.addons[0].options.maturity_threshold == 7

    @pytest.mark.parametrize(
        ("words", "benchmark", "agent"),
        [
            (["--agent", "PPO"], "offset-cartpole", "ppo"),
            (["--agent", "sb3:ppo", "--benchmark", "CartPole-v1"], "gymnasium", "sb3:PPO"),
            (["--benchmark", "Permuted_Digits"], "permuted-digits", "supervised"),
            (["--benchmark", "CartPole-v1", "--benchmark.id", "Ant-v5"], "gymnasium", "ppo"),
        ],
    )
    def test_other_spellings_that_leave_no_doubt(
        self, words: list[str], benchmark: str, agent: str
    ) -> None:
        config, _ = read_run(words)
        assert (config.benchmark.name, config.agent.name) == (benchmark, agent)
        if benchmark == "gymnasium":
            assert config.benchmark.options.id == words[-1]

    def test_lists_are_sweeps(self) -> None:
        config, options = read_run(
            [
                "--optimizer",
                "adam",
                "--optimizer.lr",
                "1e-2",
                "1e-3",
                "--optimizer.betas",
                "0",
                ".5",
            ]
            + ["--network.widths", "[64]", "[3, 4]", "--label", "mine"]
        )
        assert [*options.settings] == [
            f"+lr={lr}+widths={widths}" for lr in ("0.01", "0.001") for widths in ("64", "3,4")
        ]
        assert config == options.settings["+lr=0.01+widths=64"]
        last = options.settings["+lr=0.001+widths=3,4"]
        assert (last.optimizer.options.lr, last.network.options.widths) == (1e-3, (3, 4))
        assert last.optimizer.options.betas == (0.0, 0.5)
        assert options.label == "mine"
        assert read_run(["--network.widths", "[3, 4]"])[0].network.options.widths == (3, 4)

    def test_the_last_one_wins(self) -> None:
        config, _ = read_run(
            ["--optimizer", "adam", "--optimizer", "sgd", "--steps=1", "--steps=2"]
        )
        assert (config.optimizer.name, config.steps) == ("sgd", 2)


BAD = [
    (["lst"], "unknown command 'lst'; did you mean 'list'?"),
    (["--versoin"], "unknown command '--versoin'; did you mean '--version'?"),
    (["list", "optimiser"], "unknown kind 'optimiser'; did you mean 'optimizers'?"),
    (["list", "--jsn"], "unknown option --jsn; did you mean '--json'?"),
    (["run", "extra"], "unexpected argument 'extra'; see clrl run --help"),
    (["run", "--optimizer", "upgdd"], "--optimizer: unknown optimizer 'upgdd'; did you mean"),
    (["run", "--optimizer="], "--optimizer: unknown optimizer ''"),
    (["run", "--optimizer.lr", "fast"], "--optimizer.lr: expected a number >= 0, got 'fast'"),
    (["run", "--optimizer.lr=-1"], "--optimizer.lr: expected a number >= 0, got '-1'"),
    (["run", "--optimizer.lr", "-1"], "--optimizer.lr: expected a number >= 0, got '-1'"),
    (["run", "--optimizer.lrr", "1"], "unknown option --optimizer.lrr; did you mean"),
    (["run", "--optimizer.sigma", "1"], "unknown option --optimizer.sigma; "),
    (["run", "--optimizer.lr"], "--optimizer.lr: expected a value, got nothing"),
    (["run", "--optimizer.lr", "--steps", "3"], "--optimizer.lr: expected a value, got nothing"),
    (["run", "-x"], "unknown option -x; "),
    (["run", "--benchmark", "mnist"], "--benchmark: unknown benchmark 'mnist'; did you mean"),
    (["run", "--addons", "adam"], "--addons: unknown add-on 'adam'; "),
    (["run", "--addons"], "--addons: expected a value, got nothing"),
    (
        ["run", "--addons", "shrink-and-perturb", "--addons.shrink-and-perturb.every", "0"],
        "--addons.shrink-and-perturb.every: expected a whole number >= 1, got '0'",
    ),
    (["run", "--optimizer", "no.such:Rule"], "--optimizer: 'no.such:Rule': cannot import"),
    (["run", "--optimizer", "torch.optim:No"], "--optimizer: 'torch.optim:No': module"),
    (["run", "--network.widths", "3", "x"], "--network.widths: expected a list, each item"),
    (["run", "--network.layer-norm", "1"], "--network.layer-norm: expected true or false"),
    (["run", "--steps", "1.5"], "--steps: expected a whole number >= 1, got '1.5'"),
    (["run", "--seeds", "5-2"], "--seeds: the range 5-2 runs backwards"),
    (["run", "--seeds", ""], "--seeds: expected seeds such as 0-9"),
    (["run", "--workers", "0"], "--workers: expected a whole number >= 1 or none, got '0'"),
    (["suite"], "clrl suite: expected NAME|FILE; see clrl suite --help"),
    (["suite", "quickstrt"], "unknown suite 'quickstrt'; did you mean 'quickstart'?"),
    (["suite", "none.yaml"], "none.yaml: cannot read the suite file: No such file"),
    (["suite", "quickstart", "--steps", "x"], "--steps: expected a whole number >= 1 or none"),
    (["suite", "quickstart", "--seeds", ""], "--seeds: expected seeds such as 0-9"),
    (["suite", "quickstart", "--out", "taken"], "--out taken: expected a new or empty folder"),
    (["suite", "quickstart", "--out", "taken/mine"], "--out taken/mine: expected a folder, but"),
    (["tensorboard", "nowhere"], "nowhere: expected a folder with runs; there is no such"),
    (["tensorboard", "taken"], "taken: expected a folder with runs; it holds no event files"),
    (["tensorboard", "taken", "--port", "0"], "--port: expected a whole number in [1, 65535]"),
    (["bench", "other"], "--what: expected one of streams, envs, ppo, got 'other'"),
    (["bench", "envs", "--device", "cpu"], "--device: expected it with ppo, got envs"),
    (["run", "--optimizer.lr", "1", "x"], "--optimizer.lr: expected a number >= 0, got 'x'"),
    (["run", "--optimizer.lr", "1", "1"], "--optimizer.lr: '1' is there twice"),
    (["run", "--network.widths", "[3"], "--widths: expected a list such as [64, 64], got"),
    (
        ["run", "--label", "a/b"],
        "--label: expected 1 to 100 letters, digits and any of . _ + = , -",
    ),
    (["suite", "quickstart", "--learners", "adm"], "--learners: quickstart has no 'adm'; did you"),
    (["suite", "quickstart", "--benchmarks", "x"], "--benchmarks: quickstart has no 'x'; expected"),
    (["run", "--lr", "1"], "unknown option --lr; did you mean '--optimizer.lr'?"),
    (["run", "--env", "Ant-v5"], "unknown option --env; did you mean '--benchmark'?"),
    (["run", "--algo", "ppo"], "unknown option --algo; did you mean '--agent'?"),
    (["run", "--seed", "1"], "unknown option --seed; did you mean '--seeds'?"),
    (["run", "--total-timesteps=3"], "unknown option --total-timesteps; did you mean '--steps'?"),
    (["run", "--widths", "3"], "unknown option --widths; did you mean '--network.widths'?"),
    (["run", "--agent", "POP"], "--agent: unknown agent 'POP'; did you mean 'ppo'?"),
    (["run", "--seeds", "5"], "--seeds: 5 may be one seed or 5 seeds; write 5-5 for the one, or"),
    (["run", "--device", "tpu"], "--device: expected one of cpu, cuda, got 'tpu'"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_a_mistake_is_one_line_and_writes_nothing(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"clrl: error: {message}")
    assert printed.err.count("\n") == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{optimizer: sgd}",
            "{optimizer: {name: sgd, lr: fast}}",
            "tiny.yaml: learners.sgd.optimizer.lr: expected a number >= 0, got 'fast'",
        ),
        ("steps: 40", "stpes: 40", "tiny.yaml: stpes: unknown key; did you mean 'steps'?"),
        # These are found by the worker, before anything is written.
        (
            "network:",
            "agent: {name: supervised, batch_size: 3}\nnetwork:",
            "permuted-digits/sgd: agent.batch_size: expected a divisor",
        ),
        (
            "{name: permuted-digits, task_length: 20}",
            "permuted-mnist",
            "permuted-mnist/sgd: CLRL_DATA=/nowhere: there is no such folder",
        ),
    ],
)
def test_a_mistake_in_a_suite_is_one_line_and_writes_nothing(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in TINY
    (tmp_path / "tiny.yaml").write_text(TINY.replace(old, new))
    before = tree(tmp_path)
    done = call("suite", "tiny.yaml", "--out", "out", cwd=tmp_path, CLRL_DATA="/nowhere")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"clrl: error: {message}")
    assert done.stderr.count("\n") == 1
    assert tree(tmp_path) == before


def test_run_twice_then_list_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--benchmark.task-length", "20", "--network.widths", "4", "--steps", "40"]
    words += ["--log-every", "20", "--seeds", "0-1", "--workers", "1"]
    first = call(*words, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "whole-run" in first.stdout
    assert "clrl tensorboard runs/permuted-digits" in first.stdout
    folder = tmp_path / "runs" / "permuted-digits" / "permuted-digits" / "sgd"
    for seed in (0, 1):
        run = folder / f"seed-{seed}"
        assert record.read_status(run)["state"] == "finished"
        rows = record.read_metrics(run / "metrics.jsonl")
        assert rows[-1]["step"] == 40
        assert len(list(run.glob("events.out.tfevents.*"))) == 1
    made_with = dict(page.provenance(read(tmp_path / "runs" / "permuted-digits")))
    assert f"torch {importlib.metadata.version('torch')}" in made_with["Made with"]
    assert made_with["Threads of a process"] == "1" and made_with["Members computed"]
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    said = capsys.readouterr()
    assert "nothing to do" in said.err and said.out == first.stdout
    assert tree(tmp_path) == before
    assert main([*words, "--optimizer.lr", "0.5"]) == 2
    assert "optimizer.lr 0.01 -> 0.5" in capsys.readouterr().err
    assert tree(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW)])
def test_an_interrupted_suite_ends_promptly_and_stays_readable(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "long.yaml").write_text(
        TINY.replace("steps: 40", "steps: 40_000_000\nseeds: 0-3")
        + "  adam: {optimizer: adam}\n  upgd: {optimizer: upgd}\n"
    )
    code = "import sys; from clrl.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, "suite", "long.yaml", "--out", "out", "--workers", "2"],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out = tmp_path / "out"
    try:
        deadline = time.monotonic() + 90
        while not (rows := [row for path in out.rglob("metrics.jsonl")
                            for row in record.read_metrics(path)]):  # fmt: skip
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert rows
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does: to every process
        else:
            os.kill(process.pid, number)
        asked = time.monotonic()
        stdout, stderr = process.communicate(timeout=30)
        took = time.monotonic() - asked
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 128 + number
    assert took < 5
    assert "Traceback" not in stderr
    assert "KeyboardInterrupt" not in stderr
    how = "Ctrl-C: interrupted" if number == signal.SIGINT else "SIGTERM: preempted"
    assert stderr.splitlines()[-1].startswith(f"clrl: error: {how}; the same command")
    assert f": {how.split()[1]}\n" in stderr
    assert ("preempted" in stderr) == (number == signal.SIGTERM)
    assert stdout == ""
    states = {record.read_status(folder)["state"] for folder in record.run_folders(out)}
    assert states == {"preempted"}
    for path in out.rglob("metrics.jsonl"):
        assert path.read_bytes()[-1:] in (b"\n", b"")
        record.read_metrics(path)


class TestPlugIns:
    SMALL = ("--network.widths", "4", "--steps", "40", "--log-every", "20", "--seeds", "0-1",
             "--workers", "1")  # fmt: skip

    def train(
        self, tmp_path: Path, *words: str, path: Path = PLUGINS
    ) -> subprocess.CompletedProcess[str]:
        return call("run", *self.SMALL, *words, cwd=tmp_path, PYTHONPATH=str(path))

    @pytest.mark.parametrize("rule", [pytest.param("SignSGD", marks=SLOW), "NormScaledSGD"])
    def test_by_module_and_name(
        self,
        tmp_path: Path,
        rule: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        trained_here: None,
    ) -> None:
        monkeypatch.syspath_prepend(str(PLUGINS))
        monkeypatch.chdir(tmp_path)
        words = ["--optimizer", f"clrl_example.rules:{rule}", "--optimizer.lr", "0.02"]
        assert main(["run", *self.SMALL, *words]) == 0
        folder = tmp_path / "runs" / "permuted-digits" / "permuted-digits" / rule / "seed-1"
        config = record.read_config(folder)
        assert config["optimizer"]["name"] == f"clrl_example.rules:{rule}"
        assert config["optimizer"]["lr"] == 0.02
        assert ("mixes learners" in capsys.readouterr().err) == (rule == "NormScaledSGD")

    def test_a_stream(self, tmp_path: Path) -> None:
        name = "clrl_example.streams:TurningLine"
        done = self.train(
            tmp_path, "--benchmark", name, "--benchmark.task-length", "20", "--out", "out"
        )
        assert done.returncode == 0, done.stderr
        assert record.read_metrics(tmp_path / "out/TurningLine/sgd/seed-0/metrics.jsonl")

    @pytest.mark.slow
    def test_in_a_suite_file_and_from_the_current_folder(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text((PLUGINS / "clrl_example" / "rules.py").read_text())
        (tmp_path / "tiny.yaml").write_text(
            TINY + "  mine: {optimizer: {name: 'mine:SignSGD', lr: 1e-2}}\n"
        )
        done = call("suite", "tiny.yaml", "--out", "out", "--workers", "1", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert record.read_status(tmp_path / "out/permuted-digits/mine/seed-0")["steps"] == 40

    def test_by_entry_point(self, tmp_path: Path) -> None:
        """What pip writes when the example is installed, written by hand."""
        project = tomllib.loads((PLUGINS / "pyproject.toml").read_text())["project"]
        info = tmp_path / "site" / "clrl_example-0.1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: clrl-example\nVersion: 0.1.0\n"
        )
        (info / "entry_points.txt").write_text(
            "".join(
                f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
                for group, points in project["entry-points"].items()
            )
        )
        (tmp_path / "site" / "clrl_example").symlink_to(PLUGINS / "clrl_example")
        path = {"PYTHONPATH": str(tmp_path / "site")}
        listed = json.loads(call("list", "--json", cwd=tmp_path, **path).stdout)
        (rule,) = [row for row in listed["optimizers"] if row["name"] == "sign-sgd"]
        assert rule["source"] == "clrl-example"
        done = self.train(tmp_path, "--optimizer", "sign-sgd", path=tmp_path / "site")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "runs/permuted-digits/permuted-digits/sign-sgd/seed-0").is_dir()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--optimizer.lr", "fast"], "--optimizer.lr: expected a number, got 'fast'"),
            (["--optimizer.momentum", "1"], "unknown option --optimizer.momentum; "),
            pytest.param(["--optimizer.lr", "-1"], "permuted-digits/SignSGD: ", marks=SLOW),
        ],
    )
    def test_mistakes(self, tmp_path: Path, words: Sequence[str], message: str) -> None:
        done = self.train(tmp_path, "--optimizer", "clrl_example.rules:SignSGD", *words)
        assert done.returncode == 2
        assert done.stderr.startswith(f"clrl: error: {message}")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "runs").exists()


def test_tensorboard_shows_the_curves_and_ends(tmp_path: Path) -> None:
    run = tmp_path / "digits" / "sgd" / "seed-0"
    run.mkdir(parents=True)
    with record.Recorder(run) as recorder:
        recorder.write(10, {"online/loss": 1.5, "online/accuracy": 0.5})
        recorder.write(20, {"online/loss": 0.25, "online/accuracy": float("nan")})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        taken = call("tensorboard", ".", "--port", str(port), cwd=tmp_path)
    assert taken.returncode == 2
    assert taken.stderr.startswith(f"clrl: error: --port {port}: Address already in use")
    code = "import sys; from clrl.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, "tensorboard", ".", "--port", str(port)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        link = process.stdout.readline().partition("?")[0]
        assert link == f"http://127.0.0.1:{port}/"
        address = f"{link}data/plugin/scalars/scalars?run=digits%2Fsgd%2Fseed-0&tag=online%2F"
        assert [point[1:] for point in fetched(address + "loss")] == [[10, 1.5], [20, 0.25]]
        assert [point[1:] for point in fetched(address + "accuracy")] == [[10, 0.5]]
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert "Traceback" not in stderr
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def fetched(address: str, seconds: float = 60.0) -> list[list[float]]:
    """JSON from a server that is still starting up and reading its files."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address) as answer:
                found: list[list[float]] = json.load(answer)
                return found
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.2)


class TestArguments:
    def test_tyros_own_refusals_become_one_line(self) -> None:
        box = "╭─ Title ─╮\n│ Something is │\n│ wrong.  │\n│ ─────── │\n│ footer │\n╰───╯\n"
        assert arguments._one_line(box) == "Something is wrong."
        assert arguments._one_line("") == "the command line cannot be read"

    @pytest.mark.parametrize(
        ("argv", "values"),
        [
            (["--a", "1", "2", "--b", "3"], ["1", "2"]),
            (["--a=1", "2"], ["1"]),
            (["--a", "1", "--a", "2"], ["2"]),
            (["--b", "--a"], []),
            (["--a", "1", "-h"], ["1"]),
        ],
    )
    def test_values_after(self, argv: list[str], values: list[str]) -> None:
        assert arguments.values_after(argv, "--a") == values

    def test_refusals_name_the_nearest(self) -> None:
        with pytest.raises(UsageError, match="did you mean '--out'"):
            read_run(["--outt", "x"])
