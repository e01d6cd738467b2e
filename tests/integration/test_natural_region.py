"""A natural region on disk: what its files show is what its truth says, and the rates of its errors are those wanted.

Nine square kilometres with six dates a month in four months of winter and summer; steps, rates and directions are
measured from the files, as a mask's author would.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from scipy.ndimage import binary_dilation, binary_erosion, maximum_filter, uniform_filter
from typer.testing import CliRunner

from h2crop_data.cli.main import app
from h2crop_data.simulate.region import RegionReport, claim, simulate_region
from h2crop_data.simulate.sentinel2.scenes import bands_of_size
from h2crop_data.simulate.sentinel2.truth import aerosol_of_bands, read_surface
from h2crop_data.simulate.settings import Simulation, load_settings
from h2crop_data.simulate.sky.clouds import Sun
from h2crop_data.simulate.sky.weather import SKY_LAYERS

SETTINGS: dict[str, Any] = {
    "seed": 41,
    "cells": 4,
    "cell_size": 1440,
    "natural": {},
    "enmap.scenes": 0,
    "sentinel2.months": [1, 3, 6, 8],
    "sentinel2.dates_per_month": 6,
    "sentinel2.duplicates": 0.0,
    "sentinel2.swath_edges": 0.0,
    "sentinel2.sky": {"cloudiness": 0.35, "cirrus": 0.2, "haze": 0.1, "snow": 0.0},
}
BANDS = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11"}


@dataclass(frozen=True)
class Date:
    """One date: each (y, x) or (layer, y, x), bands by name at their own size."""

    folder: Path
    sun: Sun
    #: Reflectance as the file has it.
    seen: dict[str, Any]
    #: SKY_LAYERS, 0..1.
    sky: dict[str, Any]
    classes: Any
    surface: dict[str, Any]

    @property
    def clear(self) -> Any:
        """Nothing at all in the sky, (y, x) at 10 m."""
        return ~np.any([layer > 0 for layer in self.sky.values()], axis=0)


def of_pairs(mask: Any) -> Any:
    """Whether a mask at 10 m holds in whole pixels of 20 m."""
    rows, columns = mask.shape
    return mask.reshape(rows // 2, 2, columns // 2, 2).all(axis=(1, 3))


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("natural") / "region"
    simulate_region(load_settings(None, json.loads(json.dumps(SETTINGS))), folder, workers=2)
    return folder


@pytest.fixture(scope="module")
def dates(region: Path) -> dict[str, Date]:
    found = {}
    for item in json.loads((region / "catalog/sentinel-2-c1-l2a.json").read_text(encoding="utf-8"))["features"]:
        properties = item["properties"]
        day = properties["datetime"][:10]
        offset = 1000 if properties["s2:processing_baseline"] >= "04" else 0

        def read(key: str, item: dict[str, Any] = item) -> Any:
            with rasterio.open(region / "catalog" / item["assets"][key]["href"]) as file:
                return file.read(1)

        folder = region / "truth/sentinel2" / day
        with rasterio.open(folder / "sky.tif") as file:
            sky = dict(zip(SKY_LAYERS, file.read().astype(np.float32) / 200, strict=True))
        found[day] = Date(
            folder,
            Sun(properties["view:sun_azimuth"], properties["view:sun_elevation"]),
            {name: (read(key).astype(np.float32) - offset) / 10000 for key, name in BANDS.items()},
            sky,
            read("scl"),
            {**read_surface(folder, 10), **read_surface(folder, 20)},
        )
    return dict(sorted(found.items()))


def test_six_dates_a_month_are_there_with_all_their_files(dates: dict[str, Date], region: Path) -> None:
    assert len(dates) == 24
    assert {day[5:7] for day in dates} == {"01", "03", "06", "08"}
    for date in dates.values():
        assert sorted(path.name for path in date.folder.iterdir()) == [
            *("aerosol.tif", "sky.tif", "surface_10m.tif", "surface_20m.tif")
        ]
    overcast = [date for date in dates.values() if (date.sky["cloud"] > 0.5).mean() > 0.99]
    assert sum(date.clear.mean() > 0.5 for date in dates.values()) >= 4
    # Cirrus above it is white.
    alone = [date for date in overcast if not date.sky["cirrus"].any()]
    assert len(alone) >= 2
    for date in alone:
        mean = {name: date.seen[name].mean() for name in BANDS.values()}
        assert mean["B04"] / mean["B02"] == pytest.approx(0.89, abs=0.02)
        assert mean["B08"] / mean["B02"] == pytest.approx(0.96, abs=0.03)
        assert np.isin(date.classes, (8, 9)).all()


def test_where_the_sky_is_empty_files_show_the_surface_of_the_truth_within_noise(dates: dict[str, Date]) -> None:
    errors = {name: np.zeros(0) for name in BANDS.values()}
    for date in dates.values():
        for name in errors:
            where = of_pairs(date.clear) if name == "B11" else date.clear
            surface = date.surface[name][where]
            # The noise's standard deviation; numbers are rounded to 0.0001 in both files.
            scaled = (date.seen[name][where] - surface) / np.hypot(0.0008 + 0.004 * np.abs(surface), 0.00004)
            errors[name] = np.concatenate([errors[name], scaled])
    for name, scaled in errors.items():
        assert len(scaled) > 100_000
        assert abs(scaled.mean()) < 0.01, name
        assert scaled.std() == pytest.approx(1, abs=0.01), name
        assert np.abs(scaled).max() < 7, "aerosol and shadows of woods are in the truth, whole"


def test_aerosol_of_the_truth_can_be_taken_out(dates: dict[str, Date]) -> None:
    blue = []
    for date in dates.values():
        for size in (10, 20):
            left_in = aerosol_of_bands(date.folder, size)
            whole, without = (read_surface(date.folder, size, aerosol=wanted) for wanted in (True, False))
            assert tuple(whole) == tuple(bands_of_size(size)[: len(whole)])
            for name, values in whole.items():
                np.testing.assert_allclose(values - without[name], left_in[name], atol=1e-6)
        blue.append(float(aerosol_of_bands(date.folder, 10)["B02"].mean()))
        assert aerosol_of_bands(date.folder, 10)["B02"].std() < 0.003, "a region of three kilometres is one place"
        assert aerosol_of_bands(date.folder, 20)["B11"].mean() == pytest.approx(0.15 * blue[-1], abs=1e-4)
    assert 0.006 < np.std(blue) < 0.013


def steps(dates: dict[str, Date], clear: dict[str, Any], name: str, *, aerosol: bool = True) -> float:
    """Median of the absolute step in a band from one clear value of a pixel to the next."""
    last, found = np.full_like(next(iter(dates.values())).seen[name], np.nan), []
    for day, date in dates.items():
        values = date.seen[name] if aerosol else date.seen[name] - aerosol_of_bands(date.folder, 10)[name]
        step = np.abs(values - last)[clear[day]]
        found.append(step[np.isfinite(step)])
        last = np.where(clear[day], values, last)
    return float(np.median(np.concatenate(found)))


def test_clear_dates_jump_in_the_blue_as_real_ones_do(dates: dict[str, Date]) -> None:
    truly = {day: date.clear for day, date in dates.items()}
    called = {day: np.isin(date.classes, (4, 5, 6)).repeat(2, 0).repeat(2, 1) for day, date in dates.items()}
    # Flanders, 2018: 0.014 where SCL and another mask agree on clear ground, 0.016 where SCL does. Plain: 0.0036.
    assert 0.008 < steps(dates, truly, "B02") < 0.018
    assert 0.010 < steps(dates, called, "B02") < 0.020
    assert steps(dates, truly, "B02", aerosol=False) < 0.6 * steps(dates, truly, "B02")


def test_the_brightest_percent_of_clear_ground_is_called_cloud_on_every_date(dates: dict[str, Date]) -> None:
    shares, same = [], []
    for date in dates.values():
        near = np.any([layer > 0 for layer in date.sky.values()], axis=0)
        far = of_pairs(~binary_dilation(near, iterations=12))
        if far.mean() < 0.3:
            continue
        called = np.isin(date.classes, (8, 9)) & far
        shares.append(called.sum() / far.sum())
        blue = date.surface["B02"]
        blue = blue.reshape(blue.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))
        if called.any():
            same.append(blue[called].min() >= blue[far & ~called].max() - 0.002)
    assert len(shares) >= 4
    assert np.mean(shares) == pytest.approx(0.01, abs=0.005)
    assert max(shares) < 0.03
    assert all(same), "the brightest, and no others"


def test_shadow_is_missed_by_a_third_and_thin_cloud_up_to_its_opacity(dates: dict[str, Date]) -> None:
    found, missed = {True: 0, False: 0}, {}
    for date in dates.values():
        mean = {
            name: layer.reshape(layer.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3)) for name, layer in date.sky.items()
        }
        alone = (mean["cloud"] < 0.05) & (mean["cirrus"] < 0.02)
        dark = alone & (mean["shadow"] > 0.6)
        for hit in (True, False):
            found[hit] += int(((date.classes == 3) == hit)[dark].sum())
        for low, high in ((0.05, 0.2), (0.2, 0.34), (0.42, 0.56), (0.6, 1.0)):
            where = (mean["cloud"] > low) & (mean["cloud"] < high) & (mean["cirrus"] == 0)
            hits = missed.setdefault(low, [0, 0])
            hits[0] += int((where & ~np.isin(date.classes, (8, 9))).sum())
            hits[1] += int(where.sum())
    assert sum(found.values()) > 3000
    assert found[False] / sum(found.values()) == pytest.approx(0.33, abs=0.15)
    rates = {low: miss / number for low, (miss, number) in missed.items()}
    assert rates[0.05] > 0.97
    assert 0.7 < rates[0.2] < 0.97
    assert 0.04 < rates[0.42] < 0.3
    assert rates[0.6] < 0.02, "thick cloud is never vegetation"


def test_woods_shade_the_ground_beside_them_away_from_the_sun(dates: dict[str, Date], region: Path) -> None:
    objects = pd.read_parquet(region / "truth/objects.parquet").set_index("number")["kind"]
    date = next(iter(dates.values()))
    with rasterio.open(date.folder / "sky.tif") as sky, rasterio.open(region / "truth/land.tif") as land:
        numbers = land.read(1, window=land.window(*sky.bounds))
    kinds = np.array(["road", *objects.reindex(range(1, objects.index.max() + 1))])
    wood = (kinds == "wood")[numbers].reshape(numbers.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3)) > 0.5
    field = (kinds == "field")[numbers].reshape(numbers.shape[0] // 2, 2, -1, 2).all(axis=(1, 3))
    depth = {}
    for day, one in dates.items():
        nir = one.surface["B08"]
        # Ground whose wood, 25 m away, stands towards the sun, and ground whose wood stands on the other side.
        east, north = math.sin(math.radians(one.sun.azimuth)), math.cos(math.radians(one.sun.azimuth))
        away = (round(-2.5 * north), round(2.5 * east))
        to_sun = np.roll(wood, (-away[0], -away[1]), (0, 1)) & field
        from_sun = np.roll(wood, away, (0, 1)) & field
        both = to_sun & from_sun
        inner = np.zeros_like(field)
        inner[6:-6, 6:-6] = True
        shadow, lit = to_sun & ~both & inner, from_sun & ~both & inner
        assert min(shadow.sum(), lit.sum()) > 200
        # Against the same field some way off, so that crops do not matter.
        depth[day] = (
            float(np.median(nir[shadow] / around(nir, field & ~binary_dilation(wood, iterations=8))[shadow])),
            float(np.median(nir[lit] / around(nir, field & ~binary_dilation(wood, iterations=8))[lit])),
        )
    low = [values for day, values in depth.items() if day[5:7] == "01"]
    high = [values for day, values in depth.items() if day[5:7] == "06"]
    assert np.median([dark / lit for dark, lit in low]) < 0.6, "a low sun: 25 m from the wood is deep in its shadow"
    assert np.median([dark / lit for dark, lit in high]) > 0.85, "a high one: the shadow ends before"


def around(values: Any, where: Any) -> Any:
    """Mean of the values where a mask holds within 300 m of each pixel, the mean of all where there are none."""
    weight = uniform_filter(where.astype(float), 61)
    total = uniform_filter(np.where(where, values, 0.0).astype(float), 61)
    return np.where(weight > 0.01, total / np.maximum(weight, 1e-6), values[where].mean())


def test_conifers_are_dark_and_darkest_at_low_sun(dates: dict[str, Date], region: Path) -> None:
    objects = pd.read_parquet(region / "truth/objects.parquet")
    with (
        rasterio.open(next(iter(dates.values())).folder / "sky.tif") as sky,
        rasterio.open(region / "truth/land.tif") as land,
    ):
        numbers = land.read(1, window=land.window(*sky.bounds))[::2, ::2]
    stands = objects.query("kind == 'wood' and variant > 0.8")["number"]
    inside = binary_erosion(np.isin(numbers, stands), iterations=3)
    assert inside.sum() > 500
    of_month: dict[str, list[float]] = {}
    for day, date in dates.items():
        of_month.setdefault(day[5:7], []).append(
            float(read_surface(date.folder, 10, aerosol=False)["B08"][inside].mean())
        )
    winter, summer = np.mean(of_month["01"]), np.mean(of_month["06"])
    # Woods that masks take for shadow have 0.20 to 0.27.
    assert 0.19 < winter < 0.23
    assert 0.23 < summer < 0.27


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


TINY: dict[str, Any] = {
    "seed": 5,
    "cells": 1,
    "cell_size": 480,
    "sentinel2.months": [5, 11],
    "sentinel2.dates_per_month": 1,
    "enmap.scenes": 1,
}


def test_a_natural_region_is_the_same_whatever_the_workers_and_in_every_tile(tmp_path: Path) -> None:
    # Across the border between two tiles: both show the same numbers.
    wanted = load_settings(None, {**TINY, "natural": {}, "place": {"west": 499_680}, "sentinel2.duplicates": 0})
    for name, workers in (("one", 1), ("two", 2)):
        simulate_region(wanted, tmp_path / name, workers=workers)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    items = json.loads((tmp_path / "one/catalog/sentinel-2-c1-l2a.json").read_text(encoding="utf-8"))["features"]
    tiles: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        tiles.setdefault(item["properties"]["datetime"][:10], []).append(item)
    compared = 0
    for shown in tiles.values():
        if len(shown) < 2:
            continue
        for key in ("blue", "nir", "swir16", "scl"):
            files = [rasterio.open(tmp_path / "one/catalog" / item["assets"][key]["href"]) for item in shown]
            west, south = (max(edge) for edge in zip(*[file.bounds[:2] for file in files], strict=True))
            east, north = (min(edge) for edge in zip(*[file.bounds[2:] for file in files], strict=True))
            one, other = (file.read(1, window=file.window(west, south, east, north)) for file in files[:2])
            np.testing.assert_array_equal(one, other)
            compared += one.size
    assert compared > 0


def test_shadows_reach_enmap_too(tmp_path: Path) -> None:
    """The truth of EnMAP of a natural and a plain region differs where woods and houses are, and hardly elsewhere."""
    for name, natural in (("natural", {}), ("plain", None)):
        wanted = {**TINY, "cell_size": 960, "sentinel2.dates_per_month": 0, "natural": natural}
        simulate_region(load_settings(None, {**wanted, "enmap.sky": {"cloudiness": 0}}), tmp_path / name, workers=1)
    images = {}
    for name in ("natural", "plain"):
        with rasterio.open(next((tmp_path / name / "truth/enmap").glob("*[0-9].tif"))) as file:
            images[name], bounds = file.read().astype(float), file.bounds
    objects = pd.read_parquet(tmp_path / "plain/truth/objects.parquet")
    with rasterio.open(tmp_path / "plain/truth/land.tif") as land:
        numbers = land.read(1, window=land.window(*bounds))
    high = np.isin(numbers, objects.query("kind in ('wood', 'village')")["number"])
    side = images["plain"].shape[1]
    high = high.reshape(side, 6, side, 6).any(axis=(1, 3))
    near = maximum_filter(high, 5)
    ratio = images["natural"][60:120].mean(axis=0) / images["plain"][60:120].mean(axis=0)
    assert near.any()
    assert (~near).sum() > 50
    np.testing.assert_allclose(ratio[~near], 1, atol=0.02)
    assert ratio[high].mean() < 0.99


def settings_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What gives the settings of a region that the command begins or goes on with, and draws nothing."""

    def begin(simulation: Simulation, folder: Path, **options: Any) -> RegionReport:
        claim(simulation, folder)
        return RegionReport(str(folder), "recipe.yaml", simulation.seasons, 1, 0, 0, 0, 0, 0.0, 0.0)

    monkeypatch.setattr("h2crop_data.simulate.region.simulate_region", begin)

    def settings_of(name: str, *options: str) -> dict[str, Any]:
        outcome = CliRunner().invoke(app, ["simulate", str(tmp_path / name), *options])
        assert outcome.exit_code == 0, outcome.output
        written: dict[str, Any] = yaml.safe_load((tmp_path / name / "simulation.yaml").read_text(encoding="utf-8"))
        return written

    return settings_of


def test_the_command_makes_new_regions_natural_and_leaves_begun_ones_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_of = settings_by_command(tmp_path, monkeypatch)
    new = settings_of("new")
    assert new["natural"]["aerosol"] == 0.009
    assert new["sentinel2"]["scl_errors"] == 0
    assert settings_of("new") == new
    plain = settings_of("plain", "--plain")
    assert "natural" not in plain
    assert plain["sentinel2"]["scl_errors"] == 0.02
    assert settings_of("plain") == plain, "the same command goes on with what an older version began"
    of_file = ["--settings", str(tmp_path / "plain/simulation.yaml")]
    assert settings_of("again", *of_file) == plain
    more = settings_of("more", *of_file, "--natural")
    assert more["natural"] == new["natural"]
    assert more["sentinel2"]["scl_errors"] == 0.02, "what a file states stays"
    own = tmp_path / "own.yaml"
    own.write_text("natural: {aerosol: 0.01}\n", encoding="utf-8")
    for number, options in enumerate(([], ["--natural"])):
        assert settings_of(f"own{number}", "--settings", str(own), *options)["natural"]["aerosol"] == 0.01
    assert "natural" not in settings_of("none", "--settings", str(own), "--plain")


def test_the_command_shifts_dates_of_new_natural_regions_and_leaves_begun_ones_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_of = settings_by_command(tmp_path, monkeypatch)

    def geometry(name: str, *options: str) -> Any:
        return settings_of(name, *options)["sentinel2"].get("geometry")

    assert geometry("new") == geometry("new") == geometry("natural", "--natural")
    assert geometry("new")["sd"] == 2
    for name, options in (("plain", ["--plain"]), ("exact", ["--no-date-shifts"])):
        assert geometry(name, *options) is None
        assert geometry(name) is None, "the same command goes on with what an older version began"
    assert geometry("exact", "--natural") is None
    assert "natural" in settings_of("exact")
    assert geometry("both", "--plain", "--date-shifts")["far"] == 15
    assert "natural" not in settings_of("both")
    assert geometry("both")["far"] == 15
    own = tmp_path / "own.yaml"
    own.write_text("sentinel2: {geometry: {far: 9}}\n", encoding="utf-8")
    none = tmp_path / "none.yaml"
    none.write_text("seed: 3\n", encoding="utf-8")
    for number, options in enumerate(([], ["--natural"], ["--date-shifts"], ["--plain", "--date-shifts"])):
        assert geometry(f"own{number}", "--settings", str(own), *options)["far"] == 9
    assert geometry("own-plain", "--settings", str(own), "--plain") is None
    assert geometry("none", "--settings", str(none)) is None
    assert geometry("more", "--settings", str(none), "--natural")["far"] == 15
