"""Offsets told from real pixels: a year of Sentinel-2 over 640 m of Flanders, whose numbers hold none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pystac
import pytest

from h2crop_data.sentinel2.offset_evidence import NO_GROUND_SEEN, CoarsePicture, decide_by_pixels
from h2crop_data.sentinel2.reflectance import NO_NUMBER
from h2crop_data.sources.sentinel2.offsets import picture_from, picture_unit


@pytest.fixture(scope="module")
def pictures(shared: Path) -> dict[str, CoarsePicture]:
    """The scenes, each in the 32 x 32 pixels of its scene classification."""
    folder = shared / "flanders_2018"
    found = {}
    for feature in json.loads((folder / "items.json").read_text())["features"]:
        for asset in feature["assets"].values():
            asset["href"] = str((folder / asset["href"]).resolve())
        item = pystac.Item.from_dict(feature, migrate=False)
        found[item.id] = picture_from(picture_unit(item).compute([])).picture
    assert len(found) == 118
    return found


@pytest.mark.parametrize("every", [0, 1, 2], ids=["none has it", "all have it", "every second has it"])
def test_no_real_scene_is_decided_wrongly(pictures: dict[str, CoarsePicture], every: int) -> None:
    """With 1000 added to the numbers of some scenes they are as files with an offset are."""
    truth = {name: -1000 if every and not place % every else 0 for place, name in enumerate(pictures)}
    shown = {
        name: replace(
            picture,
            numbers={
                band: np.where(numbers == NO_NUMBER, numbers, numbers - np.int32(truth[name]))
                for band, numbers in picture.numbers.items()
            },
        )
        for name, picture in pictures.items()
    }
    verdicts = decide_by_pixels(shown, {})
    decided = {name: verdict.offset for name, verdict in verdicts.items() if verdict.offset is not None}
    assert decided == {name: truth[name] for name in decided}
    with_ground = [name for name, verdict in verdicts.items() if verdict.reason != NO_GROUND_SEEN]
    assert len(with_ground) > 60
    assert len(decided) > 0.7 * len(with_ground)
