"""Means over seeds for TensorBoard: by hand, through its own API, and in a browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clrl import machine
from clrl.cli.main import main
from clrl.errors import UsageError
from clrl.report import board
from clrl.storage import record

CODE = "import sys; from clrl.cli.main import main; sys.exit(main())"
VALUES = {  # learner -> seed -> online accuracy at steps 10, 20, 30
    "adam": {
        0: [0.5, 0.25, 0.125],
        1: [0.75, 0.5],
        2: [1.0, 0.75, 0.625],
        3: [0.75, 0.5, 0.375],
    },
    "sgd": {0: [0.25, 0.25, 0.25], 1: [0.5, 0.5, 0.5], 2: [0.75, 0.75, 0.75]},
}
WIDE = ["online/loss", "plasticity/network/dead_units", "time/elapsed", "task/index"]


def make(folder: Path) -> Path:
    """A suite's folder: of adam seed 1 diverged; sgd's seeds are still going."""
    for learner, seeds in VALUES.items():
        for seed, values in seeds.items():
            run = folder / "digits" / learner / f"seed-{seed}"
            config = {
                "optimizer": {"name": learner, "lr": 0.1 if learner == "sgd" else 0.001},
                "addons": [{"name": "continual-backprop", "decay_rate": 0.99}],
                "network": {"name": "mlp", "widths": [4, 2], "layer_norm": True},
            }
            record.start_run(run, seed, {"benchmark": {"name": "x"}, **config}, "hash")
            with record.Recorder(run) as recorder:
                for number, value in enumerate(values, start=1):
                    more = dict.fromkeys(WIDE, float(number))
                    recorder.write(10 * number, {"online/accuracy": value, **more})
            if learner == "adam":
                record.end_run(run, "diverged" if seed == 1 else "finished")
    return folder


class TestOverSeeds:
    def test_by_hand(self) -> None:
        steps = np.array([10.0, 20.0, 30.0])
        runs = [(steps, np.array([1.0, 2.0, 3.0])), (steps[:2], np.array([3.0, 6.0]))]
        curve = board.over_seeds(runs)
        assert curve.steps.tolist() == [10.0, 20.0, 30.0]
        assert curve.mean.tolist() == [2.0, 4.0, 3.0]
        assert curve.seeds.tolist() == [2.0, 2.0, 1.0]
        assert not curve.bounded  # two seeds have no interval

    def test_an_interval_of_three_seeds(self) -> None:
        steps = np.array([10.0, 20.0])
        runs = [(steps, np.array([value, 0.5])) for value in (0.4, 0.5, 0.6)]
        curve = board.over_seeds(runs, (0.0, 1.0))
        assert curve.bounded and curve.mean.tolist() == [0.5, 0.5]
        # Cut off at what an accuracy can be; at the second step all seeds agree.
        assert (curve.low.tolist(), curve.high.tolist()) == ([0.0, 0.5], [1.0, 0.5])

    def test_steps_that_only_some_seeds_have(self) -> None:
        one = (np.array([1.0, 4.0]), np.array([5.0, 7.0]))
        two = (np.array([2.0, 4.0]), np.array([1.0, 9.0]))
        curve = board.over_seeds([one, two])
        assert curve.steps.tolist() == [1.0, 2.0, 4.0]
        assert curve.mean.tolist() == [5.0, 1.0, 8.0]
        assert curve.seeds.tolist() == [1.0, 1.0, 2.0]

    def test_a_step_that_is_there_twice_counts_as_it_was_last(self) -> None:
        curve = board.over_seeds([(np.array([1.0, 1.0]), np.array([5.0, 7.0]))])
        assert (curve.steps.tolist(), curve.mean.tolist()) == ([1.0], [7.0])

    def test_a_long_curve_becomes_means_of_stretches(self) -> None:
        count = 4 * board.POINTS
        steps = np.arange(1.0, count + 1)
        curve = board.over_seeds([(steps, steps), (steps[: count // 2], steps[: count // 2])])
        # Of 1, 2, 3, 4 the mean is 2.5, and it stands at 4.
        assert curve.steps.tolist() == (4 * np.arange(1.0, board.POINTS + 1)).tolist()
        assert curve.mean.tolist() == (curve.steps - 1.5).tolist()
        assert curve.seeds[[0, -1]].tolist() == [2.0, 1.0]


class TestLayout:
    def test_a_chart_has_margins_where_all_learners_have_intervals(self) -> None:
        from tensorboard.plugins.custom_scalar import layout_pb2

        steps = np.array([10.0, 20.0])

        def learner(name: str, seeds: int) -> board.Learner:
            curve = board.over_seeds([(steps, steps + seed) for seed in range(seeds)])
            return board.Learner(name, Path(name), curves={("b", "online/return"): curve})

        def chart(*learners: board.Learner) -> Any:
            (value,) = board._layout(learners).value
            layout = layout_pb2.Layout.FromString(value.tensor.string_val[0])
            return layout.category[0].chart[0]

        (series,) = chart(learner("one", 3), learner("two", 5)).margin.series
        bounds = tuple(f"b/online/return/mean/{name}" for name in ("low", "high"))
        assert (series.lower, series.upper) == bounds
        # Two seeds have no interval, and nothing is drawn in its place.
        few = learner("two", 2)
        assert list(chart(learner("one", 3), few).multiline.tag) == ["^b/online/return/mean$"]
        assert [tag for tag, *_ in board._scalars(few)] == ["b/online/return/mean", "b/seeds"]


class TestWriting:
    def test_again_gives_one_file_a_learner_and_leaves_runs_alone(self, tmp_path: Path) -> None:
        make(tmp_path)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        for _ in range(2):
            assert board.write(tmp_path) == []
        files = {path for path in (tmp_path / board.FOLDER).rglob("*") if path.is_file()}
        names = {path.relative_to(tmp_path / board.FOLDER).parts for path in files}
        assert names == {(name, "events.out.tfevents.clrl") for name in VALUES}
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert {path: after[path] for path in before} == before

    def test_learners_that_are_gone_go(self, tmp_path: Path) -> None:
        make(tmp_path)
        board.write(tmp_path)
        shutil.rmtree(tmp_path / "digits" / "sgd")
        board.write(tmp_path)
        assert [path.name for path in (tmp_path / board.FOLDER).iterdir()] == ["adam"]

    @pytest.mark.parametrize(
        ("line", "remark"),
        [
            ('{"ste', "line 2 is not JSON"),
            ("3", "a line has another form"),
            ('{"x": 3}', "a line has another form"),
            ('{"step": 20, "x": [1]}', "a line has another form"),
        ],
    )
    def test_a_damaged_file_is_named_and_left_out(
        self, tmp_path: Path, line: str, remark: str
    ) -> None:
        make(tmp_path)
        bad = tmp_path / "digits" / "adam" / "seed-2" / "metrics.jsonl"
        bad.write_text(f'{{"step": 10, "x": 1}}\n{line}\n{{"step": 30}}\n')
        (said,) = board.write(tmp_path)
        assert said.startswith("left out: ")
        assert str(bad) in said
        assert remark in said
        assert (tmp_path / board.FOLDER / "adam").is_dir()

    def test_a_folder_of_suites_and_one_of_none(self, tmp_path: Path) -> None:
        make(tmp_path / "runs" / "one")
        make(tmp_path / "runs" / "two")
        board.write(tmp_path / "runs")
        for name in ("one", "two"):
            assert (tmp_path / "runs" / name / board.FOLDER / "adam").is_dir()
        assert not (tmp_path / "runs" / board.FOLDER).exists()
        (tmp_path / "empty").mkdir()
        assert board.write(tmp_path / "empty") == []
        assert list((tmp_path / "empty").iterdir()) == []

    def test_a_folder_that_cannot_be_written_to_is_shown_without_means(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make(tmp_path)
        (tmp_path / board.FOLDER).write_text("in the way")
        started: list[list[str]] = []
        monkeypatch.setattr(machine, "become", lambda command: started.append(list(command)))
        main(["tensorboard", str(tmp_path), "--port", str(free_port())])
        assert capsys.readouterr().err.startswith("no means over seeds: ")
        ((*_, host, address, _, _),) = started
        assert (host, address) == ("--host", "127.0.0.1")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where TensorBoard, as ``clrl tensorboard`` starts it, shows the small folder."""
    folder = make(tmp_path_factory.mktemp("board"))
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", CODE, "tensorboard", ".", "--port", str(free_port())],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        link = process.stdout.readline().split()[0]
        deadline = time.monotonic() + 60
        root = link.partition("?")[0]
        while ".tensorboard/sgd" not in (fetched(root + "data/runs") or []):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield link
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def fetched(address: str, body: dict[str, Any] | None = None) -> Any:
    """JSON from a server that may still be starting up: None where it gives none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError, http.client.HTTPException):
        return None


def test_of_many_runs_the_means_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/x/adam/seed-0", "a/x/adam/seed-1", "a/.tensorboard/adam", "b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "events.out.tfevents.1").touch()
    assert not board.crowded([tmp_path])
    monkeypatch.setattr(board, "SHOWN", 3)
    assert board.crowded([tmp_path]) and not board.crowded([tmp_path / "a"])
    means = [tmp_path / "a" / board.FOLDER]
    assert board.means([tmp_path]) == board.means([tmp_path / "a"]) == means
    assert board.where(means) == ["--logdir", str(means[0])]


class TestThroughTheApi:
    def points(self, address: str, run: str, tag: str) -> list[list[float]]:
        query = urllib.parse.urlencode({"run": run, "tag": tag})
        root = address.partition("?")[0]
        found = fetched(f"{root}data/plugin/scalars/scalars?{query}")
        return [point[1:] for point in found]

    def test_the_link(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        assert (parts.hostname, parts.fragment) == ("127.0.0.1", "timeseries")
        query = urllib.parse.parse_qs(parts.query)
        (cards,) = query.pop("tagFilter")
        assert query == {"smoothing": ["0"], "runColorGroup": [r"regex:([^/]+)(?:/seed-\d+)?$"]}
        # Intervals of means have no cards; what is called so in a run has one.
        for tag in ("b/online/loss/mean", "b/seeds", "online/loss", "plasticity/network/low"):
            assert re.search(cards, tag)
        for tag in ("b/online/loss/mean/low", "b/plasticity/network/srank/mean/high"):
            assert not re.search(cards, tag)

    def test_means_and_intervals(self, address: str) -> None:
        adam, tag = ".tensorboard/adam", "digits/online/accuracy"
        assert self.points(address, adam, f"{tag}/mean") == [[10, 0.75], [20, 0.5], [30, 0.375]]
        assert self.points(address, adam, "digits/seeds") == [[10, 4], [20, 4], [30, 3]]
        low = [value for _, value in self.points(address, adam, f"{tag}/mean/low")]
        high = [value for _, value in self.points(address, adam, f"{tag}/mean/high")]
        assert (low, high) == ([0.0] * 3, [1.0] * 3)  # so few and far apart: it may be anything
        sgd = ".tensorboard/sgd"
        assert self.points(address, sgd, f"{tag}/mean") == [[10, 0.5], [20, 0.5], [30, 0.5]]
        # The means of the runs, and their mean.
        ((step, value),) = self.points(address, adam, "digits/whole-run/accuracy")
        assert (step, value) == (30, pytest.approx((0.875 / 3 + 0.625 + 2.375 / 3 + 1.625 / 3) / 4))

    def test_single_runs_are_as_they_were(self, address: str) -> None:
        run = "digits/adam/seed-1"
        assert self.points(address, run, "online/accuracy") == [[10, 0.75], [20, 0.5]]
        names = fetched(address.partition("?")[0] + "data/runs")
        assert sorted(names) == [
            ".tensorboard/adam", ".tensorboard/sgd", "digits/adam/seed-0", "digits/adam/seed-1",
            "digits/adam/seed-2", "digits/adam/seed-3", "digits/sgd/seed-0", "digits/sgd/seed-1",
            "digits/sgd/seed-2",
        ]  # fmt: skip

    def test_a_margin_chart_a_metric(self, address: str) -> None:
        root = address.partition("?")[0]
        layout = fetched(root + "data/plugin/custom_scalars/layout")
        found = {
            category["title"]: [chart["title"] for chart in category["chart"]]
            for category in layout["category"]
        }
        assert found == {  # the dashboard shows the last chart of a category first
            "digits: online": ["loss (digits)", "accuracy (digits)"],
            "digits: plasticity": ["network/dead_units (digits)"],
        }
        (series,) = layout["category"][0]["chart"][1]["margin"]["series"]
        tag = "digits/online/accuracy/mean"
        assert series == {"value": tag, "lower": f"{tag}/low", "upper": f"{tag}/high"}

    def test_the_table_of_settings(self, address: str) -> None:
        root = address.partition("?")[0]
        about = fetched(root + "data/plugin/hparams/experiment", {"experimentName": ""})
        # widths, layer_norm and the add-on's options are the same for both
        assert [one["name"] for one in about["hparamInfos"]] == [
            "addons", "optimizer", "optimizer.lr",
        ]  # fmt: skip
        tags = [one["name"]["tag"] for one in about["metricInfos"]]
        assert tags[0] == "digits/whole-run/accuracy"
        asked = {
            "experimentName": "",
            "allowedStatuses": ["STATUS_SUCCESS", "STATUS_RUNNING"],
            "colParams": [{"metric": {"tag": tag}} for tag in tags],
            "startIndex": 0,
            "sliceSize": 10,
        }
        groups = fetched(root + "data/plugin/hparams/session_groups", asked)["sessionGroups"]
        found = {
            group["name"]: (group["hparams"], group["sessions"][0]["status"]) for group in groups
        }
        same = {"addons": "continual-backprop"}
        assert found == {
            "adam": ({**same, "optimizer": "adam", "optimizer.lr": 0.001}, "STATUS_SUCCESS"),
            "sgd": ({**same, "optimizer": "sgd", "optimizer.lr": 0.1}, "STATUS_RUNNING"),
        }
        values = {one["name"]["tag"]: one["value"] for one in groups[0]["metricValues"]}
        assert values["digits/plasticity/network/dead_units/mean"] == 3.0


# Every margin chart on the page: title -> run -> colour of its line.
CHARTS = """(() => {
  const found = {};
  const walk = (node) => {
    if (node.localName === "tf-custom-scalar-margin-chart-card")
      found[node.title] = Object.fromEntries(
        Object.entries(node._nameToDataSeries).map(([name, series]) => [
          series.getRun(), node._determineColor(node._colorScale, name)]));
    if (node.shadowRoot) walk(node.shadowRoot);
    node.childNodes.forEach(walk);
  };
  walk(document);
  return found;
})()"""

# The time series' runs: name -> colour.
RUNS = """Object.fromEntries(
  [...document.querySelectorAll("runs-data-table tb-data-table-content-row")].map(
    (row) => [row.innerText.trim(), row.querySelector(".run-color-swatch").style.background]))"""


# The time series' cards: their tags.
CARDS = """[...document.querySelectorAll("scalar-card tb-truncated-path")].map(
  (tag) => tag.title || tag.textContent.trim())"""


def browse(url: str, wait: str, evaluate: str, screenshot: Path) -> Any:
    """Look at a page in a headless browser; skips where there is none."""
    chromium, node = shutil.which("chromium"), shutil.which("node")
    if not (chromium and node):
        pytest.skip("needs Debian's chromium and node")
    script = Path(__file__).parents[2] / "browser.cjs"
    found = subprocess.run([node, "-e", "require('playwright-core')"], stderr=subprocess.DEVNULL)
    if found.returncode:
        pytest.skip("needs playwright-core: npm install it and name its folder in NODE_PATH")
    task = {
        "url": url,
        "chromium": chromium,
        "width": 1400,
        "height": 1000,
        "wait": wait,
        "evaluate": evaluate,
        "screenshot": str(screenshot),
    }
    done = subprocess.run(
        [node, str(script)], input=json.dumps(task), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["errors"] == []
    assert seen["missing"] is None
    assert screenshot.stat().st_size > 10_000
    return seen["result"]


class TestInABrowser:
    @pytest.fixture
    def pictures(self, tmp_path: Path) -> Path:
        """Where screenshots are kept."""
        folder = Path(os.environ.get("CLRL_ARTIFACTS", tmp_path))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def test_learners_overlay_in_different_colours(self, address: str, pictures: Path) -> None:
        wait = f"Object.keys({CHARTS}['accuracy (digits)'] ?? {{}}).length === 2"
        page = address.partition("?")[0] + "#custom_scalars"
        charts = browse(page, wait, CHARTS, pictures / "tensorboard-means.png")
        assert list(charts) == ["accuracy (digits)", "loss (digits)"]
        for colours in charts.values():
            assert set(colours) == {".tensorboard/adam", ".tensorboard/sgd"}
            assert len(set(colours.values())) == 2

    def test_the_link_colours_by_learner_and_does_not_smooth(
        self, address: str, pictures: Path
    ) -> None:
        wait = "document.querySelector('scalar-card line-chart') !== null"
        smoothing = "document.querySelector('.scalars-smoothing input.slider-input').value"
        picture = pictures / "tensorboard-time-series.png"
        looked = f"[{RUNS}, {smoothing}, {CARDS}]"
        colours, smoothed, cards = browse(address, wait, looked, picture)
        assert smoothed == "0"
        assert "digits/online/accuracy/mean" in cards
        assert not [tag for tag in cards if tag.endswith(("/low", "/high"))]
        assert len(colours) == 9
        of_learners = {name: {colours[f".tensorboard/{name}"]} for name in VALUES}
        assert of_learners["adam"] != of_learners["sgd"]
        for name, own in of_learners.items():
            assert own == {colour for run, colour in colours.items() if f"/{name}" in run}


def test_several_folders_each_under_its_name(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    assert board.where(folders[:1]) == ["--logdir", str(folders[0])]
    pairs = ",".join(f"{one.name}:{one.resolve()}" for one in folders)
    assert board.where(folders) == ["--logdir_spec", pairs]
    with pytest.raises(UsageError, match="expected a name without commas and colons"):
        board.where([*folders, tmp_path / "a,b"])
