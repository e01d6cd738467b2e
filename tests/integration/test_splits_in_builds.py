"""How plans and builds divide ground: optimised squares, buffers, lists; the same in every season and scene."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from shapely import STRtree
from tiny_region import EPSG, NORTH, SOUTH, WEST, TinyRegion

import h2crop_data
from h2crop_data.cube.reading import read_index, read_index_json
from h2crop_data.errors import PlanError, RecipeError
from h2crop_data.pipeline import survey
from h2crop_data.pipeline.build import build_store
from h2crop_data.pipeline.extension import kept_plans
from h2crop_data.pipeline.planning import make_plan
from h2crop_data.splits.squares import SquareContent, optimised_splits
from h2crop_data.storage.local import LocalStorage

#: Six split squares of 1 km from west to east, and what is grown where.
EAST = WEST + 6000
CODES = ("BTH", "MIS", "PPH", "ORH", "SOJ")


@pytest.fixture
def wide(region: TinyRegion) -> TinyRegion:
    """A strip of ground with two seasons, whose rarest crop grows in three places."""
    for year in (2022, 2023):
        region.add_sentinel2(f"S2_{year}", f"{year}-07-05T10:50:00Z", 1000, east=EAST + 60)
    fields = []
    for i in range(24):
        west = WEST + i * 250
        code = "SOJ" if i in (2, 11, 20) else CODES[i % 4]
        fields.append(((west + 10, SOUTH + 20, west + 230, SOUTH + 400), code))
    for year in (2021, 2022, 2023):
        region.write_parcels(year, fields)
    return region


def recipe_of(region: TinyRegion, split: dict[str, Any], **more: Any) -> Any:
    return region.recipe(
        **{
            "cell_size": 120,
            "area": {"bbox": [WEST, SOUTH, EAST, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"},
            "split": {"square_size": 1000, "shares": {"train": 0.6, "val": 0.2, "test": 0.2}, **split},
            **more,
        }
    )


def best_deviation(contents: dict[Any, SquareContent], shares: dict[str, float]) -> float:
    """The least deviation from the shares of any split of a few squares that shows every class of three everywhere."""
    squares = sorted(contents)
    promised = [
        {i for i, square in enumerate(squares) if name in contents[square].classes}
        for name in {name for content in contents.values() for name in content.classes}
    ]
    samples = np.array([contents[square].samples for square in squares])
    deviations = []
    for names in product(shares, repeat=len(squares)):
        if all(len({names[i] for i in where}) == len(shares) for where in promised if len(where) >= 3):
            held = {split: samples[[name == split for name in names]].sum() / samples.sum() for split in shares}
            deviations.append(sum(abs(held[split] - share) for split, share in shares.items()))
    return min(deviations)


def test_optimised_squares_meet_shares_and_show_every_class_everywhere(
    wide: TinyRegion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[Any, SquareContent]] = []

    def spy(contents: dict[Any, SquareContent], *more: Any) -> Any:
        asked.append(contents)
        return optimised_splits(contents, *more)

    monkeypatch.setattr(survey, "optimised_splits", spy)
    recipe = recipe_of(wide, {"method": "optimised"}, seasons=[2022, 2023])
    hashed = make_plan(recipe_of(wide, {}), 2022)
    store = tmp_path / "store"
    build_store(recipe, store, workers=1)
    samples = read_index(store, "samples-2022")
    shares = samples["split"].value_counts(normalize=True)
    wanted = {"train": 0.6, "val": 0.2, "test": 0.2}
    deviation = sum(abs(shares[split] - share) for split, share in wanted.items())
    assert deviation == pytest.approx(best_deviation(asked[0], wanted))
    assert not hashed.samples["split"].equals(samples["split"])
    # What could not be met is told by the plan.
    (kept, _) = kept_plans(LocalStorage(store))
    assert (deviation > 0.1) == any("of the samples, got" in line for line in kept.split_problems)
    # Of the arrays: a class that has labelled pixels in three squares has them in every split.
    opened = h2crop_data.open(store, 2022)
    label = opened["label"].values
    for tier in range(4):
        squares: dict[int, set[str]] = {}
        splits: dict[int, set[str]] = {}
        for i, row in enumerate(samples.itertuples()):
            for name in np.setdiff1d(label[i, tier], [0, 255]).tolist():
                squares.setdefault(name, set()).add(row.square)
                splits.setdefault(name, set()).add(row.split)
        for name, found in squares.items():
            assert len(found) < 3 or splits[name] == {"train", "val", "test"}, (tier, name)
    # The same ground has the same split in the other season.
    other = read_index(store, "samples-2023")
    both = pd.concat([samples, other]).groupby("cell")["split"].nunique()
    assert (both == 1).all()
    assert set(read_index(store, "squares")["split"]) == {"train", "val", "test"}
    assert read_index(store, "squares")["samples"].sum() == len(samples) + len(other)


def test_no_labelled_parcel_is_in_two_splits(wide: TinyRegion, tmp_path: Path) -> None:
    build_store(recipe_of(wide, {"method": "optimised"}, seasons=[2022]), tmp_path / "store", workers=1)
    opened = h2crop_data.open(tmp_path / "store", 2022).load()
    splits = read_index(tmp_path / "store", "samples-2022")["split"].to_numpy()
    seen: dict[int, set[str]] = {}
    masked = 0
    for i, split in enumerate(splits):
        labelled = (opened["label"].values[i, 0] > 0) & (opened["label"].values[i, 0] < 255)
        for number in np.unique(opened["parcel"].values[i][labelled]).tolist():
            seen.setdefault(number, set()).add(split)
        masked += int((~labelled & (opened["parcel"].values[i] > 0)).sum())
    assert all(len(found) == 1 for found in seen.values())
    assert masked > 0


def test_squares_decided_once_stay(wide: TinyRegion, tmp_path: Path) -> None:
    store = tmp_path / "store"
    half = {"area": {"bbox": [WEST, SOUTH, WEST + 3000, NORTH], "crs": f"EPSG:{EPSG}", "cells": "inside"}}
    build_store(recipe_of(wide, {"method": "optimised"}, **half), store, workers=1)
    before = read_index(store, "samples-2022").set_index("cell")["split"]
    parcels = read_index(store, "parcels-2022").set_index("number")["split"]
    build_store(recipe_of(wide, {"method": "optimised"}), store, extend=True, workers=1)
    build_store(recipe_of(wide, {"method": "optimised"}, seasons=[2023]), store, workers=1)
    after = read_index(store, "samples-2022").set_index("cell")["split"]
    later = read_index(store, "samples-2023").set_index("cell")["split"]
    assert after.loc[before.index].equals(before)
    assert later.loc[after.index].equals(after)
    assert len(after) > len(before)
    assert read_index(store, "parcels-2022").set_index("number")["split"].loc[parcels.index].equals(parcels)


def test_a_buffer_keeps_splits_apart(wide: TinyRegion, tmp_path: Path) -> None:
    build_store(recipe_of(wide, {"buffer": 300}), tmp_path / "store", workers=1)
    samples = read_index(tmp_path / "store", "samples-2022")
    everything = make_plan(recipe_of(wide, {}), 2022).samples
    assert 0 < len(samples) < len(everything)
    shapes = [shapely.box(x, y - 120, x + 120, y) for x, y in zip(samples["x0"], samples["y0"], strict=True)]
    splits = samples["split"].to_numpy()
    assert len(set(splits)) > 1
    nearest = min(
        shapes[i].distance(shapes[j]) for i, j in combinations(range(len(shapes)), 2) if splits[i] != splits[j]
    )
    assert nearest >= 300
    with pytest.raises(PlanError, match=r"split.buffer 50000 m leaves none of"):
        make_plan(recipe_of(wide, {"buffer": 50000}), 2022)


def test_lists_say_which_cell_is_where(wide: TinyRegion, tmp_path: Path) -> None:
    everything = make_plan(recipe_of(wide, {}), 2022).samples
    cells = everything["cell"].tolist()
    lists = {"train": cells[:60:2], "val": cells[1:60:2], "test": [f"{cell}_2022" for cell in cells[60:90]]}
    (wide.folder / "lists").mkdir()
    for name, ids in lists.items():
        (wide.folder / f"lists/{name}.txt").write_text("\n".join(ids) + "\n")
    store = tmp_path / "store"
    build_store(recipe_of(wide, {"lists": "lists"}, seasons=[2022, 2023]), store, workers=1)
    for season in (2022, 2023):
        samples = read_index(store, f"samples-{season}").set_index("cell")["split"]
        assert len(samples) == 90
        for name, ids in lists.items():
            assert (samples.loc[[one.removesuffix("_2022") for one in ids]] == name).all()
    # Blocks are of one split, and a parcel counts in the split whose cells hold most of it.
    samples = read_index(store, "samples-2022")
    assert (samples.groupby("block")["split"].nunique() == 1).all()
    parcels = read_index(store, "parcels-2022")
    tree = STRtree(samples.geometry.to_numpy())
    for parcel in parcels.itertuples():
        areas: dict[str, float] = {}
        for i in tree.query(parcel.geometry):
            split = samples["split"].iloc[i]
            areas[split] = areas.get(split, 0) + parcel.geometry.intersection(samples.geometry.iloc[i]).area
        if areas:
            assert areas[parcel.split] >= 0.999 * max(areas.values())
    opened = h2crop_data.open(store, 2022).load()
    labelled = (opened["label"].values[:, 0] > 0) & (opened["label"].values[:, 0] < 255)
    of_parcel = parcels.set_index("number")["split"]
    for i, split in enumerate(samples["split"]):
        numbers = np.unique(opened["parcel"].values[i][labelled[i]])
        assert (of_parcel.loc[numbers] == split).all()
    assert read_index_json(store, "recipes")["2022"]["split"]["lists"] == "lists"
    # A list that changed its mind does not fit the store.
    (wide.folder / "lists/train.txt").write_text("\n".join(lists["val"]) + "\n")
    (wide.folder / "lists/val.txt").write_text("\n".join(lists["train"]) + "\n")
    wide.add_sentinel2("S2_2024", "2024-07-05T10:50:00Z", 1000, east=EAST + 60)
    with pytest.raises(PlanError, match="has another split"):
        build_store(recipe_of(wide, {"lists": "lists"}, seasons=[2024]), store, workers=1)


def test_lists_of_the_published_dataset_are_found_on_the_ground(region: TinyRegion, tmp_path: Path) -> None:
    region.add_sentinel2("S2", "2022-07-05T10:50:00Z", 1000, east=EAST + 60)
    # Pixels of 30 m; the scene's corner lies 45 m west and north of the strip.
    region.add_enmap(3, "20220613T112220", east=EAST + 45)
    patches = {"train": "x0_y0", "val": "x128_y0", "test": "x64_y0"}
    (region.folder / "lists").mkdir()
    for name, place in patches.items():
        (region.folder / f"lists/{name}.txt").write_text(f"20220613T112220Z_003_{place}_T31UDS\n")
    plan = make_plan(recipe_of(region, {"lists": "lists"}), 2022)
    corner = WEST - 45
    assert set(plan.samples["split"]) == {"train", "val", "test"}
    for row in plan.samples.itertuples():
        # A cell that touches two patches is in no list.
        first, last = ((x - corner) / 1920 for x in (row.x0, row.x0 + 119))
        assert {row.split} == {("train", "test", "val")[number] for number in {int(first), int(last)} if number < 3}
    with pytest.raises(RecipeError, match="lists cannot be combined with method and buffer"):
        recipe_of(region, {"lists": "lists", "buffer": 100})
