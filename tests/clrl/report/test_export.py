"""What ``clrl report`` writes: the page, figures, tables, numbers."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from clrl.cli.main import main
from clrl.errors import UsageError
from clrl.report import drawing
from clrl.report.analysis import studies
from clrl.report.export import COLUMNS, write
from clrl.report.panels import panels_of
from clrl.report.results import read

MOST = ("html", "png", "csv", "parquet", "json", "latex")


class Page(HTMLParser):
    """What a page refers to, its identifiers, and whether its tags match."""

    VOID = {"meta", "link", "input", "br", "img"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "xlink:href", "action"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone(finished_page: str) -> None:
    text = finished_page
    page = Page(text)
    assert "script" not in page.tags and "img" not in page.tags
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    targets = {address[1:] for address in page.addresses if address.startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]*)\)", text))
    assert targets <= set(page.ids)
    # digits: 6 of performance, 4 of diagnostics, 1 of correlation, 1 sweep; pole: fewer.
    assert page.tags.count("figure") == 19
    assert text.count('class="seeds"') > 8 and "nan" not in text.lower().replace("financ", "")


def test_the_page_says_what_the_numbers_say(finished_page: str) -> None:
    for words in (
        "Mean accuracy over the whole run: steady 79.0%",
        "The seeds show ppo-upgd better than ppo (exact rank test, corrected for 1 comparison).",
        "shown better than",
        "fading 87.0 to 55.1, fell in 4 of 4 seeds",
        "best of 3 settings (adam+lr=0.01), chosen on seeds 0, 1, reported on seeds 2, 3",
        "Plasticity gap",
        "A suite written by hand.",
        "0123456789ab",
        "clrl 0.1.0, torch 2.13.0, Python 3.11.2",
        "c0ffee",
        "a fast one",
        "Source of the settings",
    ):
        assert words in finished_page, words


def test_the_page_shows_every_networks_end_and_its_worst_layer(finished_page: str) -> None:
    """80% of a critic's second layer is not hidden behind an actor, nor behind its first layer."""
    tables = finished_page.split("<h3>Networks at the end</h3>")[1:]
    pole = re.sub(r"<[^>]*>", "|", tables[1].split("</table>")[0])
    heads = ["dead units (actor)", "dead units (critic)", "worst layer's dead units (critic)"]
    places = [pole.replace("&#39;", "'").index(f"|{head}, %") for head in heads]
    assert places == sorted(places)
    assert "worst layer's dead units (actor)" not in pole
    row = [cell.strip() for cell in pole[pole.index("ppo-upgd") :].split("|") if cell.strip()]
    assert row[1:4] == ["10.0", "45.0", "80.0"]


def test_the_page_names_what_is_wrong(troubled_folder: Path) -> None:
    (path,) = write(troubled_folder, ["html"])
    assert path == troubled_folder / "report" / "report.html"
    text = path.read_text()
    assert "30 of 32 runs are over." in text
    for words in ("seed 2 not started", "seed 3 still going", "seed 1 diverged", "1 damaged line"):
        assert words in text, words


def test_what_a_folder_holds_is_text(suite_folder: Path) -> None:
    path = suite_folder / "suite.yaml"
    suite = yaml.safe_load(path.read_text())
    suite["description"] = "<script>alert(1)</script>"
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    (page,) = write(suite_folder, ["html"])
    assert "<script" not in page.read_text()


def test_every_format(suite_folder: Path, tmp_path: Path) -> None:
    written = write(suite_folder, MOST, tmp_path / "out")
    assert [path.name for path in written] == [
        "report.html", "figures", "metrics.csv", "metrics.parquet", "report.json",
        "tables.tex",
    ]  # fmt: skip
    assert not (suite_folder / "report").exists()
    figures = sorted((tmp_path / "out" / "figures").iterdir())
    assert len(figures) == 19
    for path in figures:
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_fonts_are_embedded_in_figures(suite_folder: Path, tmp_path: Path) -> None:
    (study, *_) = studies(read(suite_folder))
    look = drawing.styles([method.label for method in study.methods])
    drawing.save(panels_of(study, look)[0], tmp_path / "curves.pdf", look)
    data = (tmp_path / "curves.pdf").read_bytes()
    # TrueType outlines within the file; no Type 3 fonts, which publishers refuse.
    assert b"/FontFile2" in data and b"/Type3" not in data
    drawing.save(panels_of(study, look)[0], tmp_path / "again.pdf", look)
    assert (tmp_path / "again.pdf").read_bytes() == data


def test_the_tidy_table_holds_every_value(suite_folder: Path) -> None:
    table, parquet = write(suite_folder, ["csv", "parquet"])
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    found = {
        (r["benchmark"], r["learner"], r["seed"], r["step"], r["metric"]): r["value"] for r in rows
    }
    assert len(found) == len(rows)
    expected = 0
    for path in suite_folder.glob("*/*/seed-*/metrics.jsonl"):
        benchmark, learner, seed = path.parts[-4:-1]
        for line in path.read_text().splitlines():
            row = json.loads(line)
            step = row.pop("step")
            for tag, value in row.items():
                expected += 1
                assert float(found[benchmark, learner, seed[5:], str(step), tag]) == value
    assert expected == len(rows)
    pyarrow = pytest.importorskip("pyarrow.parquet")
    columns = pyarrow.read_table(parquet).to_pydict()
    assert tuple(columns) == COLUMNS
    assert [str(value) for value in columns["value"]] == [row["value"] for row in rows]
    assert columns["metric"] == [row["metric"] for row in rows]
    assert columns["seed"] == [int(row["seed"]) for row in rows]


def test_the_numbers_as_json(troubled_folder: Path) -> None:
    (path,) = write(troubled_folder, ["json"])
    content = json.loads(path.read_text())
    digits = content["benchmarks"]["digits"]
    assert [one["method"] for one in digits["methods"]] == ["steady", "fading", "adam"]
    fading = digits["methods"][1]
    assert fading["seeds"]["1"]["state"] == "diverged" and fading["online"]["seeds"] == 3
    gaps = [one["value"] for one in fading["plasticity_gap"]]
    assert gaps == pytest.approx([0.04 * task for task in range(10)])
    assert len(content["remarks"]) == 4 and digits["comparisons"] == []
    assert content["provenance"]["Commit"] == "c0ffee"
    assert digits["sweeps"][0]["best"] == "adam+lr=0.01"


def test_latex_tables(suite_folder: Path) -> None:
    (path,) = write(suite_folder, ["latex"])
    text = path.read_text()
    assert text.count(r"\begin{tabular}{lrrrrr}") == 1  # digits, where nothing is compared
    assert text.count(r"\begin{tabular}{lrrrrrr}") == 1 and text.count(r"\bottomrule") == 2
    (line,) = [line for line in text.splitlines() if line.startswith("fading")]
    assert line.count("&") == 5 and line.endswith(r"\\")
    assert "−" not in text and re.search(r"(?<!\\)%", text.replace("% ", "")) is None


def test_the_same_folder_gives_the_same_page(suite_folder: Path) -> None:
    # Drawn again by this process, whose identifiers and fonts are then no longer new to it.
    first = write(suite_folder, ["html"])[0].read_bytes()
    assert write(suite_folder, ["html"])[0].read_bytes() == first


def test_mistakes(tmp_path: Path, suite_folder: Path, capsys) -> None:
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert main(["report", str(suite_folder), "--format", "docx"]) == 2
    assert "html" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--out .*cannot write there"):
        write(suite_folder, ["csv"], tmp_path / "file")


def test_the_command_prints_what_it_wrote(suite_folder: Path, capsys) -> None:
    assert main(["report", str(suite_folder), "--format", "json", "latex"]) == 0
    folder = suite_folder / "report"
    assert capsys.readouterr().out.split() == [
        str(folder / "report.json"),
        str(folder / "tables.tex"),
    ]


def test_parquet_without_pyarrow_is_one_line(suite_folder: Path, monkeypatch, capsys) -> None:
    import builtins

    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["report", str(suite_folder), "--format", "parquet"]) == 2
    assert "pip install pyarrow" in capsys.readouterr().err


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_without_complaint(troubled_folder: Path, tmp_path: Path, width) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    (page,) = write(troubled_folder, ["html"])
    # The page, and what it looks like from inside: within a frame of a given width, since a window
    # of a headless browser is never narrower than 500.
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<body style="margin:0"><iframe id="f" width="{width}" height="900" src="{page.as_uri()}">'
        "</iframe><script>f.onload = () => { const d = f.contentDocument; const root = "
        "d.documentElement; const shown = [...d.querySelectorAll('figure svg')].map(s => "
        "s.getBoundingClientRect()); document.title = JSON.stringify({wide: root.scrollWidth, "
        "figures: shown.length, "
        "visible: shown.filter(r => r.width > 250 && r.height > 150).length, "
        "outside: shown.filter(r => r.right > root.clientWidth + 1).length, seeds: "
        "getComputedStyle(d.querySelector('.seeds')).display}); };</script>"
    )
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom",
         "--virtual-time-budget=5000", probe.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stdout[-500:]
    found = json.loads(title[1])
    assert found["figures"] == found["visible"] > 15
    assert found["outside"] == 0 and found["wide"] <= width and found["seeds"] == "none"


def test_figures_are_well_formed(finished_page: str) -> None:
    for text in re.findall(r"<svg role.*?</svg>", finished_page, re.DOTALL):
        ElementTree.parse(io.StringIO(text))


def test_several_folders_side_by_side(suite_folder: Path) -> None:
    other = suite_folder.parent / "other"
    shutil.copytree(suite_folder, other)
    out = suite_folder.parent / "both"
    names = ("html", "csv", "json", "png", "latex")
    assert len(write(suite_folder, names, out, [other])) == len(names)
    with open(out / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    of = {label: [row for row in rows if row["learner"] == label] for label in
          (f"{suite_folder.name}:fading", "other:fading")}  # fmt: skip
    one, two = ([{**row, "learner": ""} for row in found] for found in of.values())
    assert one == two and one
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "other:fading" in page and f"{suite_folder.name} and other" in page
    with pytest.raises(UsageError, match="nowhere: expected a folder with runs"):
        write(suite_folder, ["csv"], out, [Path("nowhere")])


def test_further_metrics_are_shown_by_choice(
    suite_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A share in percent, and one of the user's own, as panels and as columns of both tables."""
    for path in suite_folder.glob("pole/ppo/*/metrics.jsonl"):
        *rows, last = map(json.loads, path.read_text().splitlines())
        last |= {"plasticity/actor/dormant_units": 0.25, "plasticity/actor/mean_activity": 3.5}
        path.write_text("".join(json.dumps(row) + "\n" for row in (*rows, last)))
    words = ["report", str(suite_folder), "--format", "html", "latex", "--out"]
    show = ["--show", "mean_activity", "dormant_units", "dead_units"]
    assert main([*words, str(tmp_path / "usual")]) == 0
    assert main([*words, str(tmp_path / "more"), *show]) == 0
    usual, more = ((tmp_path / one / "report.html").read_text() for one in ("usual", "more"))
    new = ["Mean activity, actor", "Dormant units, actor"]
    for title in new:
        assert title in more and title not in usual
    # The two panels, and nothing twice.
    assert more.count("<figure") == usual.count("<figure") + 2
    table = more.split("<h3>Networks at the end</h3>")[2].split("</table>")[0]
    cells = [one.strip() for one in re.sub(r"<[^>]*>", "|", table).split("|") if one.strip()]
    assert "mean activity (actor)" in cells and "dormant units (actor), %" in cells
    assert "25.0" in cells and "3.50" in cells
    tex = (tmp_path / "more" / "tables.tex").read_text()
    assert r"mean activity (actor) & dormant units (actor), \% &" in tex
    assert "activity" not in (tmp_path / "usual" / "tables.tex").read_text()
    capsys.readouterr()

    assert main(["report", str(suite_folder), "--show", "dormant"]) == 2
    assert capsys.readouterr().err == (
        "clrl: error: --show dormant: unknown metric; there are dead_units, dormant_units, "
        "effective_rank, grad_norm, mean_activity, weight_magnitude\n"
    )
    assert not (suite_folder / "report").exists()
