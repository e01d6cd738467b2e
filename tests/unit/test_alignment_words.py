"""What datasheets and builds say of shifts and of images beside their parcels, from tables that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from h2crop_data.pipeline.frames import frame_warnings
from h2crop_data.sources.parcels.words import frames_of, frames_of_images, limits_of_frames
from h2crop_data.sources.sentinel2.words import limit_of_shifts, shift_facts, shifted_dates


def frame(tile: str, window: str = "whole", east: float = 0, **other: Any) -> dict[str, Any]:
    """A row of the table of frames."""
    row = {"tile": tile, "window": window, "shift_east": east, "shift_north": 0.0, "shift_uncertainty": 0.3}
    row |= {"parcel_count": 400, "check_east": east, "doubtful": False, "frame": "measured", "warning": ""}
    return row | other


FRAMES = pd.DataFrame(
    [
        frame("b", east=1.0),
        frame("b", "0_0", east=-9.0, warning="images are shifted 9.0 m against the parcels"),
        frame("a", east=8.0, doubtful=True, warning="images are shifted 8.0 m against the parcels"),
        frame("c", east=-3.0, check_east=np.nan),
        frame("d", east=np.nan, frame="not_measured: fewer than 300 parcels"),
        *(frame(f"e{i:02d}", east=0.1) for i in range(9)),
    ]
)


def test_tiles_are_told_from_the_farthest_on_and_the_others_counted() -> None:
    lines = frames_of_images({2022: frames_of(FRAMES)})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| 2022")]
    assert [row[1] for row in rows[:3]] == ["`a`", "`c`", "`b`"]
    assert rows[0] == ["2022", "`a`", "8.0 m", "0.0 m", "0.3 m", "400", "yes"]
    # Nothing was measured that could confirm it.
    assert rows[1][-1] == "not known"
    assert rows[2][-1] == "no"
    assert len(rows) == 10
    assert "2022: 2 tiles more, nearer to the parcels." in lines
    assert "2022: 1 tile not measured, fewer than 300 parcels." in lines


def test_a_release_of_measured_tiles_alone_is_told() -> None:
    measured = FRAMES[FRAMES["tile"] == "a"]
    lines = frames_of_images({2021: frames_of(measured), 2022: frames_of(FRAMES[FRAMES["tile"] == "d"])})
    assert len([line for line in lines if line.startswith("| 2021")]) == 1
    assert lines[-1] == "2022: 1 tile not measured, fewer than 300 parcels."
    assert frames_of_images({2021: frames_of(measured)})[-1].startswith("| 2021")


def test_images_off_their_parcels_are_a_limit_and_a_warning() -> None:
    assert limits_of_frames({2022: frames_of(FRAMES)}) == [
        "2022: in 1 tile and 1 window of 4 km images are shifted by more than half a pixel against the parcels; "
        "labels are not moved."
    ]
    assert limits_of_frames({2022: frames_of(FRAMES[FRAMES["warning"] == ""])}) == []
    assert frame_warnings(FRAMES) == [
        "a: images are shifted 8.0 m against the parcels",
        "the shift of images against parcels is uncertain, because two measurements disagree: a",
    ]


def test_shifts_are_summed_up_by_what_became_of_them() -> None:
    dates = pd.DataFrame(
        {
            "shift_east": [3.0, 6.0, 0.0, 30.0, np.nan],
            "shift_north": [4.0, 8.0, 1.0, 0.0, np.nan],
            "shift_sd": [0.2, 0.4, 0.3, 9.0, np.nan],
            "alignment": [
                *("applied", "applied", "not_needed", "rejected: the windows disagree by 9.0 m"),
                "not_measured: 2.0 % clear ground",
            ],
            "refined": ["refined", "not refined", "refined", "unknown", "refined"],
        }
    )
    found = shifted_dates({2021: {}, 2022: {"shifted": shift_facts(dates)}})
    (row,) = [[cell.strip() for cell in line.strip("|").split("|")] for line in found if line.startswith("| 202")]
    # Of those that are trusted: 5, 10 and 1 m.
    assert row[:5] == ["2022", "5.0 m", "9.5 m", "10.0 m", "0.3 m"]
    assert row[5:] == ["2", "0", "1", "1", "1", "3", "1", "1"]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"alignment": "report"}, "were measured and not corrected"),
        ({"alignment": "apply"}, "shifted by more than 4 m against"),
        ({"alignment": "apply", "alignment_limit": 7.5}, "shifted by more than 7.5 m against"),
    ],
)
def test_what_a_recipe_does_with_shifts_is_a_limit(section: dict[str, Any], says: str) -> None:
    assert says in limit_of_shifts(section)
