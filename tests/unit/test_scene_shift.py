"""The picture of a sample says where its EnMAP scene lay: the arrows end there, and the words are the index's."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_stores import make_store
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from PIL import Image

from h2crop_data.report import picture
from h2crop_data.report.page import PageSection, compose
from h2crop_data.report.scene_shift import DrawnShift, draw_shifts, drawn_shifts, match_lines, reach_of

FACTS: dict[str, Any] = {
    "enmap_match": "applied",
    "enmap_vnir_east": 21.44,
    "enmap_vnir_north": -6.2,
    "enmap_vnir_sd_east": 1.2,
    "enmap_vnir_sd_north": 0.9,
    "enmap_swir_east": -17.0,
    "enmap_swir_north": 3.1,
    "enmap_swir_sd_east": 1.6,
    "enmap_swir_sd_north": 1.3,
    "enmap_reference": ["2022-06-01", "2022-06-11", "2022-07-01"],
}
WINDOWS = ["vnir 500000 5600000 20.10 -5.00 0.80 900", "swir 500000 5600000 -16.00 2.00 0.70 800"]


def test_the_index_says_what_is_drawn() -> None:
    assert drawn_shifts(FACTS, WINDOWS) == {
        "vnir": DrawnShift((21.44, -6.2), (1.2, 0.9), [(20.1, -5.0)]),
        "swir": DrawnShift((-17.0, 3.1), (1.6, 1.3), [(-16.0, 2.0)]),
    }


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_detector_without_a_figure_is_left_out(missing: float | None) -> None:
    assert list(drawn_shifts(FACTS | {"enmap_vnir_sd_east": missing}, WINDOWS)) == ["swir"]
    assert drawn_shifts({}, []) == {}


def test_the_words() -> None:
    (line,) = match_lines(FACTS)
    assert line.split("  ·  ") == [
        "EnMAP against Sentinel-2: applied",
        "VNIR lay 21.4 ± 1.2 m east, 6.2 ± 0.9 m south",
        "SWIR lay 17.0 ± 1.6 m west, 3.1 ± 1.3 m north",
        "median of 3 dates",
    ]
    assert match_lines({"enmap_match": None}) == match_lines({}) == []
    assert match_lines({"enmap_match": "not_measured: the recipe has no Sentinel-2"}) == [
        "EnMAP against Sentinel-2: not_measured: the recipe has no Sentinel-2"
    ]
    long = match_lines(FACTS | {"enmap_match": "rejected: " + "a reason of many words " * 12})
    assert len(long) > 1
    assert max(map(len, long)) < 190


def test_arrows_end_where_the_scene_lay_and_ellipses_are_two_standard_deviations_wide() -> None:
    axes = Figure().add_subplot()
    entries = draw_shifts(axes, drawn_shifts(FACTS, WINDOWS), trusted=True)
    assert [entry.label for entry in entries] == ["VNIR 21.4 m east, 6.2 m south", "SWIR 17.0 m west, 3.1 m north"]
    arrows: list[Any] = [text for text in axes.texts if text.get_text() == ""]
    assert [arrow.xy for arrow in arrows] == [(21.44, -6.2), (-17.0, 3.1)]
    assert {arrow.arrow_patch.get_linestyle() for arrow in arrows} == {"-"}
    ellipses = [patch for patch in axes.patches if isinstance(patch, Ellipse)]
    assert [tuple(one.center) for one in ellipses] == [(21.44, -6.2), (-17.0, 3.1)]
    assert [(one.width, one.height) for one in ellipses] == [(4 * 1.2, 4 * 0.9), (4 * 1.6, 4 * 1.3)]
    dots = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "."]
    assert dots == [[[20.1, -5.0]], [[-16.0, 2.0]]]
    assert axes.get_xlim() == axes.get_ylim() == (-30, 30)


def test_what_is_not_trusted_is_drawn_broken() -> None:
    axes = Figure().add_subplot()
    draw_shifts(axes, drawn_shifts(FACTS, ()), trusted=False)
    arrows: list[Any] = list(axes.texts)
    assert {arrow.arrow_patch.get_linestyle() for arrow in arrows} == {":"}


@pytest.mark.parametrize(("east", "reach"), [(0.0, 30), (27.0, 30), (29.0, 60), (-88.1, 120)])
def test_a_panel_holds_the_arrow_and_its_uncertainty(east: float, reach: int) -> None:
    assert reach_of({"vnir": DrawnShift((east, 0.0), (1.0, 1.0), [])}) == reach


def test_windows_are_those_of_the_block() -> None:
    table = pd.DataFrame({"block": [0, 0, 1, 1], "enmap_windows": [["a", "b"], [], ["c"], None]})
    assert picture.windows_of_block(table, 0) == ["a", "b"]
    assert picture.windows_of_block(table, 1) == ["c"]
    assert picture.windows_of_block(table.drop(columns="enmap_windows"), 0) == []


def drawn_colours(section: PageSection) -> set[tuple[int, ...]]:
    """The colours of a page of one section."""
    drawn = io.BytesIO()
    compose([section]).figure.savefig(drawn, format="png")
    return set(map(tuple, np.asarray(Image.open(drawn).convert("RGB")).reshape(-1, 3).tolist()))


@pytest.mark.slow
def test_the_picture_of_a_sample_has_the_panel_and_the_line_where_it_was_measured(tmp_path: Path) -> None:
    sample = picture.read_sample(make_store(tmp_path / "store").folder, 2022, 0)
    matched = replace(sample, facts=sample.facts | FACTS, shifts=drawn_shifts(FACTS, WINDOWS))
    assert picture.header(matched).height == pytest.approx(picture.header(sample).height + picture.HEADER_LINE)
    # The blue and the red of the arrows.
    colours = {(0x1F, 0x77, 0xB4), (0xC8, 0x32, 0x2B)}
    assert colours <= drawn_colours(picture.enmap_section(matched))
    assert not colours & drawn_colours(picture.enmap_section(sample))
    assert picture.is_trusted(matched)
    assert not picture.is_trusted(replace(matched, facts=FACTS | {"enmap_match": "rejected: why"}))
