"""How the figures of a report look: vector graphics of one column's width, by matplotlib.

Methods are told apart by colour, by dash and by marker, so that figures read without colour.
Colours are those of Okabe & Ito (2008), in an order in which neighbours differ in lightness.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

SIZE = (4.2, 2.75)
"""Inches; a figure of this width keeps its text readable on a phone and in a column."""
GREY = "#8a8a8a"
_COLORS = ("#0072B2", "#D55E00", "#000000", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5, 1.5),
    (1.2, 1.2),
    (6, 1.5, 1.2, 1.5),
    (9, 2),
    (3, 1.2, 1.2, 1.2, 1.2, 1.2),
    (2.5, 2.5),
)
_MARKERS = "os^DvPX"
_SETTINGS: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": "#222222",
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8.5,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "pdf.fonttype": 42,  # TrueType, embedded: text stays text, as publishers ask
    "svg.fonttype": "path",
    "svg.hashsalt": "clrl",
    "xtick.color": "#444444",
    "xtick.labelsize": 8,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.color": "#444444",
    "ytick.labelsize": 8,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Style:
    """How a method is drawn: ``color``, ``dashes`` (on, off, ... in points) and ``marker``."""

    color: str
    dashes: tuple[float, ...]
    marker: str


@dataclass(frozen=True)
class Panel:
    """A figure with what is said of it.

    Attributes:
        name: for files.
        title: a few words.
        caption: what is seen, in a sentence or two.
        draw: draws it anew.
        section: ``performance``, ``diagnostics``, ``correlation`` or ``sweep``.
        seeds: whether it holds lines of single seeds, hidden until asked for.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    section: str
    seeds: bool = False


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """A style for each label, by its place."""
    return {
        label: Style(
            _COLORS[i % len(_COLORS)],
            _DASHES[(i + i // len(_COLORS)) % len(_DASHES)],
            _MARKERS[(i + i // len(_COLORS)) % len(_MARKERS)],
        )
        for i, label in enumerate(labels)
    }


def svg(panel: Panel, prefix: str) -> str:
    """A panel as SVG to stand within a page.

    Args:
        panel: what to draw.
        prefix: what the page's other figures do not begin their identifiers with.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure = panel.draw()
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<g id=")(seeds)[^"]*(">)', r'<g class="seeds">', text)
    text = re.sub(r' (id="|xlink:href="#|clip-path="url\(#)', rf" \g<1>{prefix}", text)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
    label = escape(f"{panel.title}. {panel.caption}", quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def save(
    panel: Panel, path: Path, labels: dict[str, Style], spread: Literal["bands", "seeds"] = "bands"
) -> None:
    """Write a panel to a file of its own, with a legend.

    Args:
        panel: what to draw.
        path: where to; the ending says how (``.pdf``, ``.png``, ``.svg``).
        labels: what the legend shows.
        spread: what is drawn around means: bands for their intervals, or a thin line a seed.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure = panel.draw()
        for axes in figure.axes:
            for line in (*axes.lines, *axes.collections):
                of_seed = str(line.get_gid() or "").startswith("seeds")
                if of_seed if spread == "bands" else isinstance(line, PolyCollection):
                    line.remove()
        handles = [
            Line2D([], [], color=s.color, dashes=s.dashes or (None, None), marker=s.marker, ms=4)
            for s in labels.values()
        ]
        figure.legend(
            handles, list(labels), loc="outside upper left", ncols=2, handlelength=3, fontsize=7.5
        )
        figure.set_size_inches(SIZE[0], SIZE[1] + 0.17 * math.ceil(len(labels) / 2))
        dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
        figure.savefig(path, dpi=300, metadata=dates.get(path.suffix))
