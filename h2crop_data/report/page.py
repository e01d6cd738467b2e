"""A page of maps and charts, placed in inches from its upper left corner, so that nothing can overlap."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image

from h2crop_data.errors import StoreError
from h2crop_data.report.layers import Line

DPI = 100
#: Inches: the page's left and right margin, the side of a map in one of six columns, the room between two. A map of
#: 192 pixels is drawn pixel by pixel: enlarging it would cost bytes and show nothing more.
LEFT, RIGHT, SIDE, GAP, PAGE_COLUMNS = 0.62, 0.28, 1.92, 0.18, 6
WIDTH = LEFT + PAGE_COLUMNS * SIDE + (PAGE_COLUMNS - 1) * GAP + RIGHT
#: Inches: the heading of a section, the title of a panel, the tick labels below a map, the room after a section.
HEADING, TITLE, TICKS, AFTER = 0.5, 0.21, 0.36, 0.22
#: Inches: a line of a legend, and each further line of the same entry.
LEGEND_LINE, LEGEND_WRAP = 0.155, 0.122
LEGEND_CHARACTERS = 30
INK, QUIET = "#1d1d1d", "#5a5a5a"


@dataclass(frozen=True)
class Entry:
    """A line of a legend: what it says and how its swatch looks (arguments of a matplotlib patch)."""

    label: str
    swatch: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        """The label cut to at most two lines."""
        return textwrap.wrap(self.label, LEGEND_CHARACTERS, max_lines=2, placeholder=" …", subsequent_indent="   ")

    @property
    def height(self) -> float:
        """Room it takes in inches."""
        return LEGEND_LINE + LEGEND_WRAP * (len(self.lines) - 1)


@dataclass(frozen=True)
class PageSection:
    """A part of the page: its height in inches, and what draws it below a place `top` inches from the upper edge."""

    height: float
    draw: Callable[[Page, float], None]


class Page:
    """A figure of fixed width on which axes, text and legends are placed in inches from the upper left corner."""

    def __init__(self, height: float) -> None:
        self.height = height
        self.figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Empty axes with their upper left corner at (left, top)."""
        place = (left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height)
        axes = self.figure.add_axes(place)
        for spine in axes.spines.values():
            spine.set(linewidth=0.6, color="#8a8a8a")
        axes.tick_params(labelsize=7, color="#8a8a8a", labelcolor=QUIET, length=2.5, width=0.6)
        return axes

    def text(self, left: float, top: float, text: str, size: float = 8, color: str = INK, **style: Any) -> None:
        """Text whose upper left corner is at (left, top); nothing in it is taken as a formula."""
        place = (left / WIDTH, 1 - top / self.height)
        self.figure.text(*place, text, fontsize=size, color=color, va="top", parse_math=False, **style)

    def heading(self, top: float, title: str, note: str) -> None:
        """The heading of a section: a thin rule, its title, and what a reader must know below it."""
        rule = Rectangle((LEFT / WIDTH, 1 - top / self.height), 1 - (LEFT + RIGHT) / WIDTH, 0, transform=None)
        rule.set(transform=self.figure.transFigure, edgecolor="#c8c8c8", linewidth=0.6)
        self.figure.add_artist(rule)
        self.text(LEFT, top + 0.07, title, size=11, weight="bold")
        self.text(LEFT, top + 0.29, note, size=8, color=QUIET)

    def map_axes(
        self, left: float, top: float, side: float, metres: float, title: str, hatch: dict[str, Any], first: bool
    ) -> Axes:
        """Axes of a map in metres from the cell's lower left corner; what no image covers shows the hatch.

        first: with tick labels, a scale bar and a north arrow. The title stands above `top`.
        """
        axes = self.axes(left, top, side, side)
        axes.set(xlim=(0, metres), ylim=(0, metres), xticks=(0, metres / 2, metres), yticks=(0, metres / 2, metres))
        ground = Rectangle((0, 0), metres, metres, linewidth=0, zorder=0, **hatch)
        ground.set_hatch_linewidth(0.6)
        axes.add_patch(ground)
        axes.set_title(title, fontsize=8.5, color=INK, pad=3.5, loc="left", parse_math=False)
        if first:
            axes.tick_params(axis="y", labelrotation=90)
            for label, place in zip(axes.get_yticklabels(), ("bottom", "center", "top"), strict=True):
                label.set(verticalalignment=place)
            for label, place in zip(axes.get_xticklabels(), ("left", "center", "right"), strict=True):
                label.set(horizontalalignment=place)
            axes.set_xlabel("metres from the lower left corner", fontsize=7, color=QUIET, labelpad=1)
            mark_scale(axes, metres)
        else:
            axes.tick_params(labelbottom=False, labelleft=False)
        return axes

    def legend(self, left: float, top: float, entries: Sequence[Entry]) -> None:
        """A legend whose upper left corner is at (left, top); `legend_height` tells the room it takes."""
        for entry in entries:
            box = Rectangle(
                (left / WIDTH, 1 - (top + 0.115) / self.height), 0.19 / WIDTH, 0.1 / self.height, linewidth=0.5
            )
            box.set(**{"edgecolor": "#8a8a8a", **entry.swatch}, transform=self.figure.transFigure)
            box.set_hatch_linewidth(0.6)
            self.figure.add_artist(box)
            self.text(left + 0.26, top, "\n".join(entry.lines), size=7, linespacing=1.25)
            top += entry.height

    def save(self, path: Path) -> Path:
        """Write the page as PNG with a palette, a third of the size of one with all colours. Raises StoreError."""
        drawn, data = io.BytesIO(), io.BytesIO()
        self.figure.savefig(drawn, format="png", dpi=DPI)
        pixels = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        pixels.save(data, "PNG", optimize=True, dpi=(DPI, DPI))
        try:
            path.write_bytes(data.getvalue())
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
        return path


def compose(sections: Sequence[PageSection]) -> Page:
    """A page with sections one below the other."""
    page = Page(sum(section.height for section in sections))
    top = 0.0
    for section in sections:
        section.draw(page, top)
        top += section.height
    return page


def column(number: int, side: float = SIDE) -> float:
    """Left edge of a column of maps in inches."""
    return LEFT + number * (side + GAP)


def legend_height(entries: Sequence[Entry]) -> float:
    """Room a legend takes in inches."""
    return sum(entry.height for entry in entries)


def percent(share: float) -> str:
    """A share for people; what is neither nothing nor all never looks like it."""
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def show_image(axes: Axes, image: NDArray[np.float32]) -> None:
    """An image (y, x, RGBA), rows from north to south, over the whole of a map."""
    west, east = axes.get_xlim()
    south, north = axes.get_ylim()
    axes.imshow(image, extent=(west, east, south, north), origin="upper", interpolation="nearest", aspect="auto")


def show_lines(axes: Axes, lines: Sequence[Line], color: str, width: float, edge: str | None = None) -> None:
    """Lines in metres on a map; edge: the colour of a rim that lets them stand out from an image."""
    for stroke, thickness in ((edge, width + 1.4), (color, width)):
        if stroke is not None:
            drawn = LineCollection(lines, colors=stroke, linewidths=thickness, antialiaseds=False)
            axes.add_collection(drawn, autolim=False)


def mark_scale(axes: Axes, metres: float) -> None:
    """A scale bar in the lower right corner of a map, and an arrow to the north in its upper right corner."""
    length = scale_length(metres)
    right, low = 0.95 * metres, 0.06 * metres
    outline = [withStroke(linewidth=2.6, foreground="white")]
    axes.plot(
        (right - length, right),
        (low, low),
        color=INK,
        linewidth=2.2,
        solid_capstyle="butt",
        zorder=5,
        path_effects=[withStroke(linewidth=4.2, foreground="white")],
    )
    axes.text(
        right - length / 2,
        low + 0.02 * metres,
        f"{length:g} m",
        ha="center",
        va="bottom",
        fontsize=7,
        color=INK,
        zorder=6,
        path_effects=outline,
    )
    axes.annotate(
        "N",
        (0.92 * metres, 0.97 * metres),
        (0.92 * metres, 0.8 * metres),
        ha="center",
        va="center",
        fontsize=8,
        color=INK,
        weight="bold",
        zorder=6,
        path_effects=outline,
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "shrinkA": 1, "path_effects": outline},
    )


def scale_length(metres: float) -> float:
    """A round length (1, 2 or 5 times a power of ten) of at most a third of a map's side."""
    power = 10.0 ** math.floor(math.log10(metres / 3))
    return max(step * power for step in (1, 2, 5) if step * power <= metres / 3)
