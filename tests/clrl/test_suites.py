"""Suites: what a file may say, what is said about mistakes, and the tables that come along."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from clrl import suites
from clrl.agents.optim.options import AdamOptions
from clrl.agents.optim.table import ADDONS
from clrl.agents.penalties.table import PENALTIES
from clrl.cli.main import main
from clrl.errors import UsageError
from clrl.launch.local import LocalCrew
from clrl.settings import suite_files
from clrl.settings.config import Choice, RunConfig, resolve
from clrl.settings.values import Place
from clrl.storage import record
from clrl.storage.checkpoint import Keeping

SMALL = """
description: Two learners.
benchmark: {name: permuted-digits, task_length: 20}
network: {name: mlp, widths: [4]}
steps: 40
log_every: 10
seeds: 0-1
learners:
  sgd:
    optimizer: sgd
  adam:
    optimizer: {name: adam, lr: 1e-3}
    network: {name: mlp, widths: [8]}
"""


def write(folder: Path, text: str = SMALL) -> str:
    path = folder / "small.yaml"
    path.write_text(text)
    return str(path)


def edited(**changes: Any) -> dict[str, Any]:
    """The small suite with other values; None takes a key out."""
    content = {**yaml.safe_load(SMALL), **changes}
    return {key: value for key, value in content.items() if value is not None}


class TestReading:
    def test_every_benchmark_with_every_learner_and_seed(self, tmp_path: Path) -> None:
        small = suites.load(write(tmp_path))
        assert (small.name, small.texts) == ("small", {"description": "Two learners."})
        jobs = small.populations(tmp_path / "out")
        assert [one.label for one in jobs] == ["permuted-digits/sgd", "permuted-digits/adam"]
        assert jobs[1].folders == {
            seed: tmp_path / "out" / "permuted-digits" / "adam" / f"seed-{seed}" for seed in (0, 1)
        }
        adam = jobs[1].config
        assert adam.benchmark.options.task_length == 20
        assert (adam.steps, adam.log_every) == (40, 10)
        assert adam.optimizer.options == AdamOptions(lr=0.001)
        assert adam.network.options.widths == (8,)
        assert jobs[0].config.network.options.widths == (4,)

    def test_several_benchmarks(self) -> None:
        raw = edited(
            benchmark=None,
            benchmarks={"slow": "slow-regression", "fast": {"name": "permuted-digits"}},
        )
        found = suites.from_mapping(raw, Place("s.yaml"), "s")
        labels = [one.label for one in found.populations(Path("out"))]
        assert labels == ["slow/sgd", "slow/adam", "fast/sgd", "fast/adam"]

    def test_the_command_line_overrides(self, tmp_path: Path) -> None:
        found = suites.load(write(tmp_path), {"seeds": "5-5", "steps": "1e2"})
        assert found.seeds == (5,)
        assert {config.steps for config in found.learners.values()} == {100}

    def test_what_is_kept_gives_the_same_suite(self, tmp_path: Path) -> None:
        small = suites.load(write(tmp_path))
        text = record.to_yaml(small.to_dict())
        again = suites.from_mapping(yaml.safe_load(text), Place("kept"), "small")
        assert again == small

    def test_a_learner_for_some_benchmarks_alone(self) -> None:
        raw = {
            "benchmarks": {"digits": "permuted-digits", "pole": "switching-cartpole"},
            "learners": {
                "both": {"optimizer": "sgd"},
                "acts": {"optimizer": "adam", "agent": "ppo", "benchmarks": ["pole"]},
            },
        }
        found = suites.from_mapping(raw, Place("some"), "some")
        labels = [job.label for job in found.populations(Path("out"))]
        assert labels == ["digits/both", "pole/both", "pole/acts"]
        assert suites.from_mapping(found.to_dict(), Place("kept"), "some") == found

    @pytest.mark.parametrize("given", [["sea"], [], "pole", [["pole"]], None])
    def test_benchmarks_of_a_learner_that_are_not_there(self, given: Any) -> None:
        raw = {
            "benchmarks": {"pole": "switching-cartpole"},
            "learners": {"acts": {"optimizer": "adam", "agent": "ppo", "benchmarks": given}},
        }
        line = "some: learners.acts.benchmarks: expected a list out of pole, got"
        with pytest.raises(UsageError, match=line):
            suites.from_mapping(raw, Place("some"), "some")

    @pytest.mark.parametrize("name", suite_files.names())
    def test_suites_that_come_along(self, name: str) -> None:
        found = suites.load(name)
        assert found.name == name
        assert set(found.texts) == {"description", "source", "duration"}
        for one in found.populations(Path("out")):
            options = one.config.benchmark.options
            assert one.config.log_every <= one.config.steps
            length = getattr(options, "task_length", one.config.steps)
            assert one.config.steps % length == 0

    def test_settings_as_published(self) -> None:
        mnist = suites.load("permuted-mnist")
        assert mnist.seeds == tuple(range(20))
        upgd = mnist.learners["upgd"]
        assert (upgd.steps, upgd.log_every) == (1_000_000, 5_000)
        options = upgd.optimizer.options
        assert (options.lr, options.sigma, options.beta_utility, options.weight_decay) == (
            (0.01, 0.1, 0.9999, 0.01)
        )
        assert options.utility_max == "raw"
        short = suites.load("permuted-mnist-short")
        assert short.seeds == (0, 1, 2)
        assert {config.steps for config in short.learners.values()} == {100_000}
        for label, config in short.learners.items():
            assert replace(config, steps=1_000_000) == mnist.learners[label]
        assert short.benchmarks == mnist.benchmarks
        assert short.learners.keys() == mnist.learners.keys()
        assert set(suites.load("quickstart").learners) == {
            "adam", "sgd", "shrink-and-perturb", "continual-backprop", "upgd",
            "ppo-adam", "ppo-adam-reset", "ppo-shrink-and-perturb", "ppo-fire",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learners": None}, "learners: expected a mapping, got nothing"),
        ({"learners": {}}, "learners: expected at least one entry, got none"),
        ({"learners": {"a": None}}, "learners.a: expected a mapping, got nothing"),
        ({"learners": {"a": {}}}, "learners.a.optimizer: expected an optimizer, got nothing"),
        ({"learners": {"a": {"optimizer": "adm"}}}, "learners.a.optimizer: unknown optimizer"),
        (
            {"learners": {"adam": {"optimizer": {"name": "adam", "lr": "fast"}}}},
            "learners.adam.optimizer.lr: expected a number >= 0, got 'fast'",
        ),
        (
            {"learners": {"a": {"optimizer": "sgd", "steps": 0}}},
            "learners.a.steps: expected a whole number >= 1, got 0",
        ),
        (
            {"learners": {"a": {"optimiser": "sgd"}}},
            "learners.a.optimiser: unknown key; did you mean 'optimizer'?",
        ),
        ({"learners": {"../a": {"optimizer": "sgd"}}}, "learners.../a: a label names a folder"),
        ({"learners": {".a": {"optimizer": "sgd"}}}, "learners..a: a label names a folder"),
        ({"learners": {"": {"optimizer": "sgd"}}}, "learners.: a label names a folder"),
        ({"learners": {1: {"optimizer": "sgd"}}}, "learners: expected text as a key, got 1"),
        ({"learners": {False: {}}}, "learners: expected text as a key, got false"),
        ({"learners": ["sgd"]}, "learners: expected a mapping, got ['sgd']"),
        ({"benchmark": None}, "benchmarks: expected a mapping, got nothing"),
        ({"benchmark": "permuted-digit"}, "benchmark: unknown benchmark 'permuted-digit'; did"),
        ({"benchmarks": {"x": "slow-regression"}}, "benchmarks: expected either"),
        ({"benchmark": None, "benchmarks": {"a/b": "x"}}, "benchmarks.a/b: a label names"),
        ({"benchmark": None, "benchmarks": {"a": None}}, "benchmarks.a: expected a benchmark"),
        ({"network": {"name": "mlp", "width": [3]}}, "network.width: unknown key; did you mean"),
        ({"steps": "many"}, "steps: expected a whole number >= 1, got 'many'"),
        ({"seeds": "3-1"}, "seeds: the range 3-1 runs backwards"),
        ({"seeds": []}, "seeds: expected seeds such as"),
        ({"seed": 3}, "seed: unknown key; did you mean 'seeds'?"),
        ({"description": 3}, "description: expected text, got 3"),
    ],
)
def test_mistakes_name_the_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        suites.from_mapping(edited(**changes), Place("s.yaml"), "s")
    assert str(caught.value).startswith(f"s.yaml: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "expected a mapping, got ['a', 'b']"),
        (b"", "expected a mapping, got nothing"),
        (b"steps: [1\nseeds: 3\n", "line 2: "),
        (b"steps: 1\nseeds: 3\nsteps: 2\n", "line 3: the key 'steps' is there twice"),
        (b"steps: !!python/object/apply:os.getcwd []\n", "line 1: could not determine a constr"),
        (b"\xff\xfe", "cannot read the suite file: it is not UTF-8 text"),
        (b"steps: \x07\n", "not YAML: "),
    ],
)
def test_files_that_are_not_a_mapping(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        suites.load(str(path))
    assert str(caught.value).startswith(f"{path}: {message}")


def test_suites_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown suite 'quickstrt'; did you mean 'quickstart'"):
        suites.load("quickstrt")
    for path in (tmp_path / "none.yaml", tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match="cannot read the suite file"):
            suites.load(str(path))


@pytest.mark.parametrize(
    ("optimizer", "addons", "label"),
    [
        ("adam", [], "adam"),
        ("continual-backprop", ["shrink-and-perturb"], "sgd+continual-backprop+shrink-and-perturb"),
        ("torch.optim:RMSprop", [], "RMSprop"),
    ],
)
def test_a_single_run_is_labelled_by_name(optimizer: str, addons: list[str], label: str) -> None:
    config = resolve({"optimizer": optimizer, "addons": addons}, Place())
    single = suites.single(config, "0-1")
    (one,) = single.populations(Path("out"))
    assert one.label == f"permuted-digits/{label}"
    assert one.config == config
    assert list(one.folders) == [0, 1]


def every_addon() -> RunConfig:
    """A learner with all that can be named around its optimizer."""
    tables = {"addons": ADDONS, "penalties": PENALTIES}
    return resolve({key: [one.name for one in table] for key, table in tables.items()}, Place())


def labels(config: RunConfig, label: str | None = None, **settings: RunConfig) -> list[str]:
    more = {f"+lr={key}": one for key, one in settings.items()}
    return list(suites.single(config, "0", label, more).learners)


def test_a_label_of_many_names_is_one_that_can_be_given() -> None:
    config = every_addon()
    (label,) = labels(config)
    names = [one.name for one in (config.optimizer, *config.addons, *config.penalties)]
    assert len("+".join(names)) > 200
    *first, mark = label.split("+")
    assert first == names[: len(first)]
    assert 100 - len(f"+{names[len(first)]}") < len(label) <= 100  # no room for one more
    assert labels(config, label) == labels(config) == [label]  # the same folder each time
    text = SMALL.replace("  sgd:", f"  {label}:")
    assert label in suites.from_mapping(yaml.safe_load(text), Place(), "small").learners
    # Learners that differ where the label ends have other folders.
    (other,) = labels(replace(config, penalties=config.penalties[:-1]))
    assert other != label and other.split("+")[:-1] == first and mark.startswith("more-")
    # A sweep's settings are whole, and all of one learner.
    one, two = labels(config, None, **{"0.001": config, "0.12345": config})
    assert one.removesuffix("+lr=0.001") == two.removesuffix("+lr=0.12345")
    assert len(two) <= 100 and labels(config, two) == [two]


def test_a_label_with_just_enough_room_is_whole() -> None:
    plug_in = Choice(f"own:{'A' * 95}", None)
    config = resolve({"optimizer": "adam"}, Place())
    (label,) = labels(replace(config, addons=(plug_in,)))
    assert label == f"adam+{'A' * 95}"
    (label,) = labels(replace(config, addons=(Choice(f"own:{'A' * 96}", None),)))
    assert re.fullmatch(r"adam\+more-[0-9a-f]{6}", label)
    (label,) = labels(replace(config, optimizer=Choice(f"own:{'A' * 101}", None)))
    assert re.fullmatch(r"A{88}\+more-[0-9a-f]{6}", label) and labels(config, label) == [label]


def test_labels_that_are_too_long_say_how_long_they_may_be() -> None:
    with pytest.raises(UsageError, match="label: expected 1 to 100 letters, digits and any of"):
        labels(every_addon(), "a" * 101)


@pytest.mark.parametrize(
    ("name", "label"), [("a.b:C", "C"), ("a.b:C.d", "C.d"), (":_x/y", "x-y"), ("..", "unnamed")]
)
def test_labels_are_safe(name: str, label: str) -> None:
    assert suites.safe_label(name) == label


STAND_IN = """
import sys
from multiprocessing.connection import Connection
from clrl.launch.worker import main
from clrl.storage.record import Recorder

class StandIn:
    def prepare(self, config):
        pass

    def check(self, config, device):
        return []

    def train(self, config, terms, progress, remark):
        for folder in terms.folders.values():
            with Recorder(folder) as recorder:
                recorder.write(config.steps, {"x": 1.0})
        return {seed: "finished" for seed in terms.folders}

main(Connection(int(sys.argv[1])), StandIn())
"""


class TestCarryOut:
    @pytest.fixture(autouse=True)
    def _stand_in(self, tmp_path: Path) -> None:
        script = tmp_path / "stand_in.py"
        script.write_text(STAND_IN)
        self.command = [sys.executable, str(script)]

    def run(self, text: str, out: Path) -> str:
        found = suites.from_mapping(yaml.safe_load(text), Place("small.yaml"), "small")
        console = Console(file=io.StringIO(), width=200)
        assert suites.carry_out(found, out, console, LocalCrew(2, self.command), Keeping()) == []
        return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]

    def test_a_second_time_does_nothing(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert "4 of 4 runs to do" in self.run(SMALL, out)
        assert len(record.run_folders(out)) == 4
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        assert "nothing to do, all 4 runs" in self.run(SMALL, out)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    def test_what_is_missing_is_added(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        self.run(SMALL, out)
        record.end_run(out / "permuted-digits" / "sgd" / "seed-1", "preempted")
        assert "1 of 4 runs to do" in self.run(SMALL, out)
        assert "2 of 6 runs to do" in self.run(SMALL.replace("0-1", "0-2"), out)
        assert len(record.run_folders(out)) == 6

    def test_the_kept_file_of_a_sweep_gives_the_same_runs(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        swept = suites.from_mapping(
            yaml.safe_load(SMALL.replace("lr: 1e-3", "lr: [1e-3, 1e-4]")), Place("s.yaml"), "small"
        )
        console = Console(file=io.StringIO(), width=200)
        assert (
            suites.carry_out(
                suites.with_scratch(swept), out, console, LocalCrew(2, self.command), Keeping()
            )
            == []
        )
        labels = {path.parent.name for path in record.run_folders(out)}
        assert labels == {
            f"{label}{more}"
            for label in ("sgd", "adam+lr=0.001", "adam+lr=0.0001")
            for more in ("", "+scratch")
        }
        assert "nothing to do, all 12 runs" in self.run((out / "suite.yaml").read_text(), out)
        assert "nothing to do, all 4 runs" in self.run(SMALL.replace("lr: 1e-3", "lr: [1e-3]"), out)

    def test_changed_settings_are_refused(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        self.run(SMALL, out)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        with pytest.raises(UsageError, match=r"optimizer\.lr 0\.001 -> 0\.1; choose another"):
            self.run(SMALL.replace("1e-3", "1e-1").replace("  sgd:", "  new:"), out)
        with pytest.raises(UsageError, match=r"steps 40 -> 80"):
            self.run(SMALL.replace("steps: 40", "steps: 80"), out)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_the_oracle_and_adam_of_offset_cartpole(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["suite", "offset-cartpole", "--learners", "adam", "adam-reset", "--seeds", "0-5"]
    assert main([*words, "--dry-run"]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert rows[1:3] == [["offset-cartpole/adam", "0-5"], ["offset-cartpole/adam-reset", "0-5"]]
    assert rows[3][:1] == ["12"]


class TestNames:
    def suite(self, text: str) -> suites.Suite:
        return suites.from_mapping(yaml.safe_load(text), Place("s.yaml"), "s")

    def test_a_label_that_is_a_name_and_a_kind_with_a_default_need_none(self) -> None:
        short = self.suite(
            "benchmarks: {permuted-digits: {task_length: 500}, slow-regression: }\n"
            "network: {widths: [16]}\nagent: {batch_size: 2}\n"
            "learners: {upgd: , adam: {optimizer: {lr: 0.5}}, mine: {optimizer: {momentum: 0.5}}}"
        )
        full = self.suite(
            "benchmarks:\n  permuted-digits: {name: permuted-digits, task_length: 500}\n"
            "  slow-regression: slow-regression\n"
            "network: {name: mlp, widths: [16]}\nagent: {name: supervised, batch_size: 2}\n"
            "learners:\n  upgd: {optimizer: upgd}\n  adam: {optimizer: {name: adam, lr: 0.5}}\n"
            "  mine: {optimizer: {name: sgd, momentum: 0.5}}"
        )
        assert short == full

    def test_agents_follow_the_learners_benchmark(self) -> None:
        found = self.suite(
            "benchmarks: {offset-cartpole: , permuted-digits: }\n"
            "learners:\n  a: {optimizer: adam, benchmarks: [permuted-digits]}\n"
            "  b: {optimizer: adam, benchmarks: [offset-cartpole]}"
        )
        agents = {label: config.agent.name for label, config in found.learners.items()}
        assert agents == {"a": "supervised", "b": "ppo"}
        assert found.learners["b"].network.options.activation == "tanh"

    def test_other_labels_need_a_name(self) -> None:
        with pytest.raises(UsageError, match="benchmarks.fast.name: expected a name, got nothing"):
            self.suite("benchmarks: {fast: {task_length: 5}}\nlearners: {a: {optimizer: sgd}}")
        with pytest.raises(UsageError, match="learners.a.optimizer: expected an optimizer"):
            self.suite("benchmark: permuted-digits\nlearners: {a: {}}")


def test_a_learners_own_steps(tmp_path: Path) -> None:
    text = SMALL.replace("  sgd:\n", "  sgd:\n    steps: 30\n    log_every: 10\n")
    table = suites.load(write(tmp_path, text))
    steps = {label: (one.steps, one.log_every) for label, one in table.learners.items()}
    assert steps["sgd"] == (30, 10) != steps["adam"]
    again = suites.from_mapping(table.to_dict(), Place("s.yaml"), "s")
    assert again.learners == table.learners
    short = suites.load(write(tmp_path, text), {"steps": 20})
    assert {one.steps for one in short.learners.values()} == {20}


class TestParts:
    def suite(self) -> suites.Suite:
        raw = {
            "benchmarks": {"a": "permuted-digits", "b": "slow-regression"},
            "learners": {
                "swept": {"optimizer": {"name": "sgd", "lr": [1, 2]}},
                "adam": {"optimizer": "adam", "benchmarks": ["b"]},
                "fresh": {"optimizer": "adam", "scratch_of": "adam"},
            },
        }
        return suites.from_mapping(raw, Place("s.yaml"), "s")

    def test_nothing_chosen_is_the_whole(self) -> None:
        assert suites.chosen(self.suite()) == self.suite()

    def test_learners_and_benchmarks(self) -> None:
        part = suites.chosen(self.suite(), ["swept", "fresh"], ["a"])
        assert list(part.learners) == ["swept+lr=1.0", "swept+lr=2.0", "fresh"]
        assert list(part.benchmarks) == ["a"]
        assert part.scratch_of == {}
        one = suites.chosen(self.suite(), ["swept+lr=2.0"])
        assert (list(one.learners), list(one.benchmarks)) == (["swept+lr=2.0"], ["a", "b"])
        assert list(suites.chosen(self.suite(), [], ["b"]).only) == ["adam"]
        again = suites.from_mapping(part.to_dict(), Place("s.yaml"), "s")
        assert again.populations(Path()) == part.populations(Path())

    @pytest.mark.parametrize(
        ("learners", "benchmarks", "message"),
        [
            (["swep"], [], "--learners: s has no 'swep'; did you mean 'swept'?"),
            ([], ["c"], "--benchmarks: s has no 'c'; expected one of a, b"),
            (["adam"], ["a"], "--learners: none of adam is for a"),
        ],
    )
    def test_mistakes(self, learners: list[str], benchmarks: list[str], message: str) -> None:
        with pytest.raises(UsageError) as caught:
            suites.chosen(self.suite(), learners, benchmarks)
        assert str(caught.value) == message


class TestExtends:
    def load(self, folder: Path, **files: str) -> suites.Suite:
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text)
        return suites.load(str(folder / "mine.yaml"))

    def test_a_suite_that_comes_along(self, tmp_path: Path) -> None:
        base = suites.load("quickstart")
        text = "extends: quickstart\nseeds: 0-1\nlearners: {new: {optimizer: {lr: 1}}}"
        mine = self.load(tmp_path, mine=text)
        assert (mine.name, mine.texts, mine.seeds) == ("mine", {}, (0, 1))
        assert mine.benchmarks == base.benchmarks
        assert {label: mine.learners[label] for label in base.learners} == base.learners
        new = mine.learners["new"]
        assert new.network == base.learners["sgd"].network
        assert (new.steps, new.optimizer.options.lr) == (base.learners["sgd"].steps, 1.0)

    def test_a_file_beside_it_and_another_benchmark(self, tmp_path: Path) -> None:
        mine = self.load(
            tmp_path,
            base="benchmark: slow-regression\nsteps: 7\n"
            "learners: {a: {optimizer: sgd}, b: {optimizer: sgd}}",
            mine="extends: ./base.yaml\nbenchmarks: {permuted-digits: }\n"
            "learners: {b: {optimizer: adam}}",
        )
        assert list(mine.benchmarks) == ["permuted-digits"]
        assert {label: one.optimizer.name for label, one in mine.learners.items()} == {
            "a": "sgd",
            "b": "adam",
        }
        assert mine.learners["a"].steps == 7

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("extends: quickstrt", "unknown suite 'quickstrt'; did you mean 'quickstart'?"),
            ("extends: 3", "extends: expected text, got 3"),
            ("extends: ./mine.yaml", "extends: './mine.yaml' extends this suite in turn"),
            ("extends: ./none.yaml", "none.yaml: cannot read the suite file: No such file"),
            ("extends: quickstart\nsetps: 3", "setps: unknown key; did you mean 'steps'?"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(UsageError) as caught:
            self.load(tmp_path, mine=text)
        assert message in str(caught.value)
