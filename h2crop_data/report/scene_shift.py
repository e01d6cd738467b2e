"""How far the EnMAP scene of a sample lay from Sentinel-2, in words and as arrows in metres."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

from h2crop_data.constants import COARSE
from h2crop_data.report.page import INK, QUIET, Entry

#: EnMAP's detectors and the colours of their arrows.
DETECTOR_COLOURS = {"vnir": "#1f77b4", "swir": "#c8322b"}
#: The panel reaches this far either way at least, in metres, and in such steps: a pixel.
LEAST_REACH = COARSE
#: Characters of a line of the page's header.
LINE_CHARACTERS = 185

MetresOff = tuple[float, float]


@dataclass(frozen=True)
class DrawnShift:
    """What the index says of one detector of a scene, in metres east and north."""

    shift: MetresOff
    #: One standard deviation along each axis, with that of where Sentinel-2 lies.
    sd: MetresOff
    #: What windows say alone.
    windows: Sequence[MetresOff]


def drawn_shifts(facts: Mapping[str, Any], windows: Sequence[str]) -> dict[str, DrawnShift]:
    """The detectors whose shift was measured. facts: the index row; windows: those of the scene, as the index has them.

    A detector that lacks a figure is left out.
    """
    found = {}
    for name in DETECTOR_COLOURS:
        figures = [facts.get(f"enmap_{name}_{figure}") for figure in ("east", "north", "sd_east", "sd_north")]
        if all(isinstance(figure, float) and math.isfinite(figure) for figure in figures):
            east, north, sd_east, sd_north = (float(figure) for figure in figures if figure is not None)
            own = [text.split() for text in windows if text.startswith(f"{name} ")]
            places = [(float(words[3]), float(words[4])) for words in own]
            found[name] = DrawnShift((east, north), (sd_east, sd_north), places)
    return found


def match_lines(facts: Mapping[str, Any]) -> list[str]:
    """The shift of a scene and whether it was corrected, in lines of the header; empty where it was not measured."""
    decision = facts.get("enmap_match")
    if not decision:
        return []
    told = [f"EnMAP against Sentinel-2: {decision}"]
    for name, one in drawn_shifts(facts, ()).items():
        told.append(f"{name.upper()} lay {words_of_shift(one, certain=True)}")
    dates = facts.get("enmap_reference") or []
    if dates:
        told.append(f"median of {len(dates)} date{'s' if len(dates) != 1 else ''}")
    return textwrap.wrap("  ·  ".join(told), LINE_CHARACTERS)


def words_of_shift(shift: DrawnShift, certain: bool) -> str:
    """A shift; certain: with its standard deviations."""
    parts = []
    for metres, sd, (above, below) in zip(shift.shift, shift.sd, (("east", "west"), ("north", "south")), strict=True):
        how_sure = f" ± {sd:.1f}" if certain else ""
        parts.append(f"{abs(metres):.1f}{how_sure} m {above if metres >= 0 else below}")
    return ", ".join(parts)


def reach_of(shifts: Mapping[str, DrawnShift]) -> int:
    """Metres that a panel reaches either way, in whole pixels, to hold every arrow and two sd beyond its end."""
    farthest = max(
        abs(metres) + 2 * sd for one in shifts.values() for metres, sd in zip(one.shift, one.sd, strict=True)
    )
    return COARSE * max(1, math.ceil(max(farthest, LEAST_REACH) / COARSE))


def draw_shifts(axes: Axes, shifts: Mapping[str, DrawnShift], trusted: bool) -> list[Entry]:
    """Arrows from where content belongs to where it lay, ellipses of two standard deviations, a dot for each window.

    trusted: whether the measurement was; else arrows are drawn broken. Gives the legend.
    """
    reach = reach_of(shifts)
    ticks = (-reach, 0, reach)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=ticks, yticks=ticks)
    axes.set_title("Where EnMAP lay, metres", fontsize=8.5, color=INK, pad=3.5, loc="left")
    axes.set_xlabel("ellipses: two sd; dots: windows", fontsize=7, color=QUIET, labelpad=1)
    axes.axhline(0, color="#cccccc", linewidth=0.6, zorder=0)
    axes.axvline(0, color="#cccccc", linewidth=0.6, zorder=0)
    entries = []
    for name, one in shifts.items():
        color = DETECTOR_COLOURS[name]
        inside = [place for place in one.windows if max(map(abs, place)) <= reach]
        axes.plot([east for east, _ in inside], [north for _, north in inside], ".", color=color, markersize=2)
        wide, high = (4 * sd for sd in one.sd)
        axes.add_patch(Ellipse(one.shift, wide, high, facecolor="none", edgecolor=color, linewidth=0.9))
        axes.annotate(
            "",
            xy=one.shift,
            xytext=(0, 0),
            arrowprops={
                "arrowstyle": "-|>",
                "color": color,
                "linewidth": 1.4,
                "linestyle": "-" if trusted else ":",
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
        entries.append(Entry(f"{name.upper()} {words_of_shift(one, certain=False)}", {"facecolor": color}))
    return entries
