"""`h2crop inspect`: its figures are those that were written, and its picture shows them where they belong."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_stores import (
    CUT_MONTH,
    EMPTY_MONTH,
    EPSG,
    FIRST_CELL,
    NORTH_WEST,
    SOFTWARE,
    SOUTH,
    WAVELENGTHS,
    MadeStore,
    make_store,
)
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from h2crop_data.cli.main import app, main
from h2crop_data.constants import ENMAP_FLAGS, MONTHS, REFLECTANCE_SCALE
from h2crop_data.cube.reading import read_index
from h2crop_data.cube.root import stored_data
from h2crop_data.cube.schema import FORMAT_VERSION
from h2crop_data.errors import StoreError
from h2crop_data.report import layers, page, picture
from h2crop_data.report.summary import find_sample, fullest_sample, json_value, sample_facts, season_of, summarize
from h2crop_data.simulate.enmap.bands import enmap_bands

#: The most a picture of a small store may take, and the least one with a dozen maps does.
MOST_BYTES, LEAST_BYTES = 200_000, 20_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """Two seasons with every layer; not to be changed."""
    return make_store(tmp_path_factory.mktemp("all") / "store", seasons=(2021, 2022))


@pytest.fixture(scope="module")
def labels_only(tmp_path_factory: pytest.TempPathFactory) -> MadeStore:
    """One season with neither Sentinel-2 nor EnMAP."""
    return make_store(tmp_path_factory.mktemp("labels") / "store", s2_bands=(), enmap=False)


def pixels_of(path: Path) -> np.ndarray[Any, Any]:
    """A PNG as (row, column, RGB), 0 to 255."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def map_of(pixels: np.ndarray[Any, Any], column: int, top: float) -> np.ndarray[Any, Any]:
    """The pixels inside a map of a page, without its frame; top: of its section, in inches."""
    first = round((top + page.HEADING + page.TITLE) * page.DPI)
    left, side = round(page.column(column) * page.DPI), round(page.SIDE * page.DPI)
    return pixels[first + 3 : first + side - 3, left + 3 : left + side - 3]


def quarters(values: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The inner part of each quarter of a map, where neither border nor scale bar lies."""
    high, wide = values.shape[0], values.shape[1]
    rows = {"n": slice(high // 8, high * 3 // 8), "s": slice(high * 5 // 8, high * 3 // 4)}
    columns = {"w": slice(wide // 8, wide * 3 // 8), "e": slice(wide * 5 // 8, wide * 3 // 4)}
    return {f"{r}{c}": values[rows[r], columns[c]] for r in rows for c in columns}


def rgb(color: str) -> list[int]:
    """#rrggbb as three numbers."""
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


class TestSummary:
    """The figures of `summarize` are those of the arrays that were written."""

    def test_the_store(self, made: MadeStore) -> None:
        summary = summarize(made.folder)
        on_disk = [path for path in made.folder.rglob("*") if path.is_file() and ".build" not in path.parts]
        assert summary["release"] == 1
        assert summary["format_version"] == FORMAT_VERSION
        assert summary["software"] == SOFTWARE
        assert summary["layout"] == made.layout.attributes() | asdict(stored_data(made.layout.attributes()))
        assert list(summary["seasons"]) == ["2021", "2022"]
        # The manifest lists all files but its parts (one a season, one for the rest), the root and its copy.
        assert summary["files"] == len(on_disk) - 5
        assert summary["bytes"] == sum(
            path.stat().st_size
            for path in on_disk
            if path.name != "root.json" and (path.name != "zarr.json" or path.parent != made.folder)
        )

    def test_a_season(self, made: MadeStore) -> None:
        season = summarize(made.folder)["seasons"]["2022"]
        assert (season["samples"], season["blocks"], season["cells"]) == (5, 2, 5)
        assert season["splits"] == {"train": {"samples": 3, "blocks": 1}, "val": {"samples": 2, "blocks": 1}}
        assert season["scenes"] == {"sentinel2": {"found": 12, "taken": 11}, "enmap": {"found": 3, "taken": 2}}
        assert season["recipe"] == {"name": "made-2022", "description": "A store of the tests."}
        assert season["ground"]["epsg"] == [EPSG]
        west, south, east, north = season["ground"]["bbox"]
        assert 3.02 < west < east < 3.05
        assert 50.81 < south < north < 50.82
        assert season["bytes"] == sum(
            path.stat().st_size for path in (made.folder / "2022").rglob("*") if path.is_file()
        )

    def test_arrays(self, made: MadeStore) -> None:
        arrays = summarize(made.folder)["seasons"]["2021"]["arrays"]
        assert set(arrays) == set(made.layout.arrays())
        for name, spec in made.layout.arrays().items():
            shards = [path for path in (made.folder / "2021" / name).iterdir() if path.name.startswith("c.")]
            assert arrays[name] == {
                "shape": [6, *spec.sample_shape],
                "dims": list(spec.dims),
                "dtype": spec.dtype.name,
                "shards": 2,
                "bytes": sum(path.stat().st_size for path in shards),
            }

    def test_shares(self, made: MadeStore) -> None:
        season = summarize(made.folder)["seasons"]["2022"]
        arrays = made.arrays[2022]
        assert season["s2_clear_share"] == pytest.approx((arrays["s2_clear"] > 0).mean(axis=(0, 2, 3)).tolist())
        assert season["s2_clear_share"][EMPTY_MONTH] == 0
        assert season["s2_clear_share"][CUT_MONTH] == 0.75
        assert season["declared_share"] == 0.75
        assert season["labelled_share"] == [0.75, 0.75, 0.25, 0.25]
        assert season["enmap_flagged_share"] == pytest.approx(1 / 64)
        assert season["wavelength_nm"] == [450.0, 2400.0]

    def test_classes_of_all_splits(self, made: MadeStore) -> None:
        pixels = int((made.arrays[2022]["label"][:, 3] == NORTH_WEST[3]).sum())
        assert summarize(made.folder)["seasons"]["2022"]["classes"] == [
            {"id": NORTH_WEST[3], "name": "grazed_pasture", "pixels": pixels, "share": 1.0}
        ]

    def test_training_statistics_are_of_the_training_split(self, made: MadeStore) -> None:
        training = summarize(made.folder)["training"]
        # Block 0 of both seasons: three samples each.
        values = np.concatenate([made.arrays[season]["s2"][:3] for season in (2021, 2022)]).astype(float)
        measured = np.where(values == -32768, np.nan, values * REFLECTANCE_SCALE)
        assert training["samples"] == 6
        assert list(training["s2"]) == list(stored_data(made.layout.attributes()).s2_bands)
        for i, band in enumerate(training["s2"].values()):
            assert band["mean"] == pytest.approx(np.nanmean(measured[:, :, i]))
            assert band["sd"] == pytest.approx(np.nanstd(measured[:, :, i]))
        assert len(training["enmap"]["mean"]) == len(WAVELENGTHS)

    def test_layers_a_store_lacks_are_left_out(self, labels_only: MadeStore) -> None:
        summary = summarize(labels_only.folder)
        season = summary["seasons"]["2022"]
        assert set(season["arrays"]) == {"label", "prior", "parcel"}
        assert season["s2_clear_share"] is season["wavelength_nm"] is season["enmap_flagged_share"] is None
        assert season["scenes"] == {}
        assert set(summary["training"]) == {"split", "samples"}

    def test_reads_no_shard(self, made: MadeStore, tmp_path: Path) -> None:
        copied = make_store(tmp_path / "store")
        for shard in (copied.folder / "2022").rglob("c.[0-9].0*"):
            if shard.parent.name in copied.layout.arrays():
                shard.unlink()
        assert summarize(copied.folder)["seasons"]["2022"] == summarize(made.folder)["seasons"]["2022"]

    def test_a_folder_that_is_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"zarr\.json: .*a finished store"):
            summarize(tmp_path)


class TestSamples:
    """A sample is found by number, by id and by cell."""

    def test_find(self, made: MadeStore) -> None:
        samples = read_index(made.folder, "samples-2022")
        for place in range(len(samples)):
            row = samples.iloc[place]
            assert find_sample(samples, place) == find_sample(samples, str(place)) == place
            assert find_sample(samples, row["sample"]) == find_sample(samples, row["cell"]) == place

    @pytest.mark.parametrize("wanted", [5, "5", "-1", "32631_240_0001_0001_20220701T103000", ""])
    def test_one_that_does_not_exist(self, made: MadeStore, wanted: int | str) -> None:
        samples = read_index(made.folder, "samples-2022")
        with pytest.raises(StoreError, match=rf"expected one of 5, numbered from 0: {samples['sample'].iloc[0]}"):
            find_sample(samples, wanted)

    def test_the_fullest_has_most_clear_and_labelled_pixels(self, made: MadeStore) -> None:
        samples = read_index(made.folder, "samples-2022")
        assert fullest_sample(samples) == 0
        samples["class_share"] = [[0.1] * 4, [0.9] * 4, None, [0.9] * 4, [0.2] * 4]
        samples["enmap_flagged_share"] = [0, 0.5, 0, 0.1, np.nan]
        assert fullest_sample(samples) == 3

    def test_seasons(self, made: MadeStore) -> None:
        assert season_of(made.folder, None) == 2022
        assert season_of(made.folder, 2021) == 2021
        with pytest.raises(StoreError, match="has no season 1999; it has 2021, 2022"):
            season_of(made.folder, 1999)

    def test_facts_are_plain(self, labels_only: MadeStore) -> None:
        facts = sample_facts(read_index(labels_only.folder, "samples-2022"), 1)
        assert facts["number"] == 1
        assert facts["scene_time"] is facts["sun_elevation"] is None
        assert facts["cell"] == f"{EPSG}_240_{FIRST_CELL[0] + 1}_{FIRST_CELL[1]}"
        assert facts["class_share"] == [0.75, 0.75, 0.25, 0.25]
        json.dumps(facts, allow_nan=False)

    def test_plain_values(self) -> None:
        assert json_value(np.array([1.5, np.nan])) == [1.5, None]
        assert json_value(np.int64(3)) == 3
        assert json_value(True) is True


class TestLayers:
    """Images have north at the top, the right band in the right colour, and nothing where nothing was measured."""

    def test_true_colour_of_a_sample(self, made: MadeStore) -> None:
        sample = picture.read_sample(made.folder, 2022, 1)
        bands, (low, high), images = sample.true_colour
        assert bands == ("B04", "B03", "B02")
        raw = made.arrays[2022]["s2"][1][:, [2, 1, 0]]
        measured = raw != -32768
        values = np.where(measured, raw * REFLECTANCE_SCALE, np.nan)
        assert (low, high) == pytest.approx(tuple(np.nanpercentile(values, (2, 98))), rel=1e-4)
        assert len(images) == MONTHS
        for month, image in enumerate(images):
            expected = np.clip((np.moveaxis(values[month], 0, -1) - low) / (high - low), 0, 1)
            assert (image[..., 3] == measured[month].all(axis=0)).all()
            clear = image[..., 3] == 1
            # The picture has 128 colours for all months; that costs a few hundredths.
            assert np.abs(image[..., :3] - expected)[clear].max(initial=0) < 0.08
        assert images[EMPTY_MONTH][..., 3].max() == 0

    def test_true_colour_without_those_bands(self) -> None:
        assert layers.true_colour(["B02", "B03", "B04", "B08"]) == ("B04", "B03", "B02")
        assert layers.true_colour(["B05", "B8A", "B11", "B12"]) == ("B05", "B8A", "B11")
        assert layers.true_colour(["B08"]) == ("B08", "B08", "B08")

    def test_false_colour_of_a_sample(self, made: MadeStore) -> None:
        shown, image = picture.read_sample(made.folder, 2022, 0).false_colour
        assert shown == [850.0, 650.0, 550.0]
        # Vegetation in the north-west is red; water in the north-east is dark; bare soil in the south is not red.
        assert image[1, 1].tolist() == [1, 0, 0, 1]
        assert image[1, -2, :3].max() < 0.2
        assert image[-2, 1, 0] < image[-2, 1, 1]
        assert image[-1, -1, 3] == 0

    def test_one_stretch_cuts_two_percent_and_survives_constant_and_empty_values(self) -> None:
        values = np.linspace(0, 1, 101, dtype=np.float32)
        assert layers.stretch_limits(values) == pytest.approx((0.02, 0.98))
        low, high = layers.stretch_limits(np.full((3, 3), 0.5, np.float32))
        assert low == 0.5 < high
        assert layers.stretch_limits(np.full((3, 3), np.nan, np.float32)) == (0, 1)

    def test_fewer_colours_keeps_sizes_order_and_gaps(self) -> None:
        rng = np.random.default_rng(0)
        images = [rng.random((5, 4, 4)).astype(np.float32) for _ in range(3)]
        for image in images:
            image[..., 3] = rng.random((5, 4)) > 0.5
        reduced = layers.fewer_colours(images, 256)
        for before, after in zip(images, reduced, strict=True):
            assert (before[..., 3] == after[..., 3]).all()
            assert np.abs(before[..., :3] - after[..., :3]).max() < 0.02
        few = np.concatenate(layers.fewer_colours(images, 4))[..., :3]
        assert len(np.unique(few.reshape(-1, 3), axis=0)) <= 4

    def test_colours_go_from_a_class_to_the_largest_that_refines_it(self) -> None:
        first = np.array([[1, 1, 1, 1, 2, 0]], np.uint8)
        second = np.array([[5, 5, 5, 6, 7, 0]], np.uint8)
        prior = np.array([[7, 8, 8, 255, 0, 5]], np.uint8)
        above, below = layers.class_colours(np.stack([first, second]), prior)
        assert set(above) == {1, 2}
        assert below[5] == above[1]
        assert below[7] == above[2]
        assert set(below) == {5, 6, 7, 8}
        assert len(set(below.values())) == 4

    def test_every_class_has_a_colour_even_beyond_the_palette(self) -> None:
        labels = np.arange(1, 101, dtype=np.uint8).reshape(1, 10, 10)
        (colours,) = layers.class_colours(labels)
        assert len(set(colours.values())) == 100

    def test_class_map(self) -> None:
        labels = np.array([[0, 3], [255, 4]], np.uint8)
        image = layers.class_map(labels, {3: "#ff0000", 4: "#00ff00"}, "#808080")
        assert np.round(image * 255).tolist() == [[[128, 128, 128, 255], [255, 0, 0, 255]], [[0] * 4, [0, 255, 0, 255]]]

    def test_flags(self) -> None:
        assert set(layers.FLAG_COLOURS) == set(ENMAP_FLAGS)
        assert len(set(layers.FLAG_COLOURS.values())) == len(ENMAP_FLAGS)
        cloud, water = ENMAP_FLAGS["cloud"], ENMAP_FLAGS["water"]
        quality = np.array([[0, water], [cloud, cloud | water]], np.uint16)
        assert layers.flags_present(quality) == [("cloud", 0.5), ("water", 0.5)]
        image = np.round(layers.flag_map(quality, "#ffffff")[..., :3] * 255)
        colours = [rgb(color) for color in ("#ffffff", layers.FLAG_COLOURS["water"], layers.FLAG_COLOURS["cloud"])]
        assert image.tolist() == [[colours[0], colours[1]], [colours[2], colours[2]]]

    def test_parcel_borders_lie_on_pixel_edges_in_metres_from_the_lower_left_corner(self) -> None:
        parcels = np.array([[7, 0], [0, 0]], np.uint32)
        assert layers.parcel_borders(parcels, 10) == [((10, 20), (10, 10)), ((0, 10), (10, 10))]

    def test_land_kinds_of_a_sample(self, made: MadeStore) -> None:
        sample = picture.read_sample(made.folder, 2022, 0)
        kinds = layers.land_kinds(sample.layer("enmap"), sample.layer("wavelength"), sample.layer("enmap_quality"))
        whole, vegetation, bare, water = (kinds[kind] for kind in layers.LAND_KINDS)
        assert whole.sum() == 62
        assert vegetation[:4, :4].all()
        assert vegetation.sum() == 16
        assert water[:4, 4:].all()
        assert water.sum() == 16
        assert bare[4:, :6].all()
        assert bare.sum() == 30

    def test_a_spectrum_has_gaps_where_there_are_no_bands(self, made: MadeStore) -> None:
        sample = picture.read_sample(made.folder, 2022, 0)
        pixels = np.zeros((8, 8), bool)
        pixels[0, :2] = True
        x, y = layers.mean_spectrum(sample.layer("enmap"), sample.layer("wavelength"), pixels)
        gaps = np.flatnonzero(np.isnan(x))
        assert [(x[i - 1], x[i + 1]) for i in gaps] == [(1300, 1500), (1750, 1950)]
        assert (np.isnan(y) == np.isnan(x)).all()
        assert np.delete(y, gaps) == pytest.approx(made.arrays[2022]["enmap"][0, :, 0, 0] * REFLECTANCE_SCALE, abs=1e-6)

    def test_where_detectors_take_turns_each_has_a_line(self) -> None:
        centres, widths = enmap_bands()
        kept = ~((centres > 1325) & (centres < 1395))
        vnir, swir = layers.bands_of_lines(centres[kept], widths[kept])
        assert (len(vnir), len(swir)) == (91, 127)
        assert sorted([*vnir, *swir]) == list(range(218))
        # A few percent between the detectors zigzag in one line, and not in two.
        spectrum = 0.3 + np.isin(np.arange(218), swir) * 0.02
        assert all(np.ptp(spectrum[line]) == 0 for line in (vnir, swir))
        for few in (np.array([450.0, 650.0, 860.0, 1600.0, 2200.0]), centres[centres > 1000]):
            (line,) = layers.bands_of_lines(few, np.full(len(few), 10.0))
            assert line.tolist() == list(range(len(few)))
        (line,) = layers.bands_of_lines(centres, np.zeros(224))
        assert len(line) == 224

    def test_a_band_of_noise_does_not_set_the_range_of_a_plot(self) -> None:
        centres = np.linspace(420, 2450, 224)
        spectrum = 0.3 + 0.2 * np.sin(centres / 400)
        low, high = layers.spectra_range([spectrum])
        assert (low, high) == pytest.approx((spectrum.min(), spectrum.max()), abs=0.005)
        for places in ([164], [164, 165], [164, 165, 166], [0], [223]):
            noisy = spectrum.copy()
            noisy[places] = 1.7
            noisy[[30, 31]] = np.nan
            assert layers.spectra_range([noisy, spectrum]) == pytest.approx((low, high), abs=0.005)
            noisy[places] = -2
            assert layers.spectra_range([noisy]) == pytest.approx((low, high), abs=0.005)
        few = np.array([0.04, 0.08, 0.05, 0.45, 0.25, 0.12])
        assert layers.spectra_range([few]) == (0.04, 0.45)
        assert layers.spectra_range([]) == layers.spectra_range([np.full(9, np.nan)]) == (0.0, 1.0)

    def test_the_drawing_of_spectra_has_that_range_and_a_line_a_detector(self) -> None:
        centres, widths = enmap_bands()
        spectrum = (0.2 + 0.1 * np.sin(centres / 300)).astype(np.float32)
        spectrum[163] = 1.7
        parts = {
            "wavelength": centres,
            "fwhm": widths,
            "enmap": np.broadcast_to(spectrum[:, None, None], (224, 6, 6)),
            "enmap_quality": np.zeros((6, 6), np.uint16),
        }
        sample: Any = SimpleNamespace(layer=parts.__getitem__)
        axes = Figure().add_subplot()
        entries = picture.draw_spectra(axes, sample)
        assert axes.get_ylim()[0] == 0
        assert 0.3 < axes.get_ylim()[1] < 0.4
        assert len(axes.lines) == 2 * len(entries) > 0
        assert sorted(np.isfinite(line.get_ydata()).sum() for line in axes.lines[:2]) == [91, 133]
        assert {entry.label.split(", ")[-1] for entry in entries} == {"36 px"}
        mask = np.zeros((6, 6), np.uint8)
        mask[:2] = [[1], [2]]
        entries = picture.draw_spectra(Figure().add_subplot(), sample, mask)
        assert {entry.label.split(", ")[-1] for entry in entries} == {"24 px"}

    def test_monthly_means_leave_out_months_without_a_pixel(self) -> None:
        index = np.full((3, 1, 2), np.nan, np.float32)
        index[0] = (0.2, 0.4)
        index[1, 0, 0] = 0.5
        means = layers.monthly_means(index, np.array([[True, True]]))
        assert means[:2] == pytest.approx([0.3, 0.5])
        assert np.isnan(means[2])

    def test_ratio(self) -> None:
        one, other = np.array([0.3, 0.0, np.nan], np.float32), np.array([0.1, 0.0, 0.1], np.float32)
        assert layers.ratio(one, other)[0] == pytest.approx(0.5)
        assert np.isnan(layers.ratio(one, other)[1:]).all()

    def test_the_parcels_are_drawn_on_the_clearest_month_nearest_to_july(self) -> None:
        share = np.ones(MONTHS)
        assert picture.clearest_month(share) == 6
        share[[6, 7]] = 0.5
        assert picture.clearest_month(share) == 5

    def test_scale_and_percentages(self) -> None:
        assert [page.scale_length(side) for side in (240, 960, 1920)] == [50, 200, 500]
        assert [page.percent(share) for share in (0, 0.001, 0.25, 0.999, 1)] == ["0%", "<1%", "25%", ">99%", "100%"]


class TestPicture:
    """What was written is seen in the file, in its place."""

    def test_labels_are_where_they_belong(self, labels_only: MadeStore, tmp_path: Path) -> None:
        path = picture.draw_sample(labels_only.folder, 2022, 2, tmp_path / "sample.png")
        sample = picture.read_sample(labels_only.folder, 2022, 2)
        pixels = pixels_of(path)
        top = picture.header(sample).height
        for tier, (first, second) in enumerate(zip(NORTH_WEST[:2], SOUTH[:2], strict=True)):
            colours = sample.class_colours[tier]
            found = quarters(map_of(pixels, tier, top))
            for place, color in (
                ("nw", colours[first]),
                ("sw", colours[second]),
                ("se", colours[second]),
                ("ne", picture.EMPTY_COLOUR),
            ):
                assert np.abs(np.median(found[place], axis=(0, 1)) - rgb(color)).max() < 12, (tier, place)
        # Tier 3 of the south is unknown: a hatch, not one colour, and light.
        unknown = quarters(map_of(pixels, 2, top))["sw"]
        assert unknown.reshape(-1, 3).std(axis=0).max() > 5
        assert np.median(unknown) > 200

    @pytest.mark.slow
    def test_nothing_measured_is_hatched_and_light(self, made: MadeStore, tmp_path: Path) -> None:
        path = picture.draw_sample(made.folder, 2022, 0, tmp_path / "sample.png")
        sample = picture.read_sample(made.folder, 2022, 0)
        pixels = pixels_of(path)
        top = picture.header(sample).height
        found = quarters(map_of(pixels, CUT_MONTH, top))
        assert found["nw"].min() > 170
        assert np.ptp(found["nw"].reshape(-1, 3), axis=1).max() < 10
        # The other quarters are data: dark in blue and brighter to the south and east, as written.
        assert found["ne"][..., 2].max() < 100
        means = {place: quarter[..., 0].mean() for place, quarter in quarters(map_of(pixels, 1, top)).items()}
        assert means["nw"] < means["ne"] < means["sw"] < means["se"]

    @pytest.mark.slow
    def test_size_and_place(self, made: MadeStore, tmp_path: Path) -> None:
        path = picture.draw_sample(made.folder, 2021, None, tmp_path / "sample.png")
        assert LEAST_BYTES < path.stat().st_size < MOST_BYTES
        assert pixels_of(path).shape[1] == round(page.WIDTH * page.DPI)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "layout",
        [
            {"enmap": False, "labels": False},
            {"s2_bands": ("B11", "B12"), "enmap": False},
            {"labels": False},
            {"s2_bands": (), "labels": False},
        ],
    )
    def test_only_layers_that_exist_are_drawn(self, tmp_path: Path, layout: dict[str, Any]) -> None:
        store = make_store(tmp_path / "store", blocks=1, capacity=1, **layout)
        path = picture.draw_sample(store.folder, 2022, 0, tmp_path / "sample.png")
        sample = picture.read_sample(store.folder, 2022, 0)
        sections = [picture.header(sample)]
        sections += [picture.sentinel2_section(sample)] if stored_data(store.layout.attributes()).s2_bands else []
        sections += [picture.enmap_section(sample)] if stored_data(store.layout.attributes()).enmap_bands else []
        sections += [picture.label_section(sample)] if stored_data(store.layout.attributes()).labels else []
        assert pixels_of(path).shape[0] == pytest.approx(page.DPI * sum(one.height for one in sections), abs=1)

    def test_long_names_and_many_classes_stay_in_their_column(self) -> None:
        entry = page.Entry("12%  " + "other aromatic medicinal culinary plants spices herbs and more", {})
        assert len(entry.lines) == 2
        assert max(map(len, entry.lines)) <= page.LEGEND_CHARACTERS
        assert page.legend_height([entry]) > page.legend_height([page.Entry("12%  maize", {})])

    def test_a_file_that_cannot_be_written(self, labels_only: MadeStore, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="cannot write"):
            picture.draw_sample(labels_only.folder, 2022, 0, tmp_path / "none" / "sample.png")


class TestCommand:
    """The command line."""

    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["inspect", *arguments])

    @pytest.mark.slow
    def test_tables(self, made: MadeStore) -> None:
        result = self.run(str(made.folder))
        assert result.exit_code == 0
        assert result.stdout == ""
        for text in ("release 1", "12 × 10 × 24 × 24", "grazed pasture", "made-2021", f"EPSG:{EPSG}", "450 to 2400 nm"):
            assert text in result.stderr
        assert "sample 0 (of 0 to 4)" in result.stderr

    def test_tables_without_the_layers(self, labels_only: MadeStore) -> None:
        result = self.run(str(labels_only.folder))
        assert result.exit_code == 0
        assert "clear Sentinel-2 pixels of" not in result.stderr

    def test_json(self, made: MadeStore) -> None:
        result = self.run(str(made.folder), "--json", "--season", "2021", "--sample", "3")
        assert result.exit_code == 0

        def refuse(constant: str) -> None:
            raise ValueError(f"{constant} is not JSON")

        answer = json.loads(result.stdout, parse_constant=refuse)
        assert answer["season"] == 2021
        assert answer["sample"]["sample"] == made.samples[2021]["sample"].iloc[3]
        assert answer["seasons"] == summarize(made.folder)["seasons"]

    @pytest.mark.slow
    def test_plot(self, made: MadeStore, tmp_path: Path) -> None:
        target = tmp_path / "sample.png"
        wanted = made.samples[2022]["sample"].iloc[4]
        result = self.run(str(made.folder), "--sample", wanted, "--plot", str(target), "--json")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["picture"] == str(target)
        assert LEAST_BYTES < target.stat().st_size < MOST_BYTES
        expected = picture.draw_sample(made.folder, 2022, 4, tmp_path / "expected.png")
        assert target.read_bytes() == expected.read_bytes()

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("--season", "1999"), 1, "has no season 1999; it has 2021, 2022"),
            (("--sample", "99"), 1, "unknown sample 99; expected one of 5"),
            (("--plot", "sample.jpg"), 2, "sample.jpg: expected a name that ends in .png"),
        ],
    )
    def test_what_cannot_be_shown(
        self,
        made: MadeStore,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: tuple[str, ...],
        code: int,
        message: str,
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["h2crop", "inspect", str(made.folder), *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == code
        assert message in " ".join(capsys.readouterr().err.split())

    def test_a_folder_that_is_no_store(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["h2crop", "inspect", str(tmp_path)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 1
        assert "zarr.json" in capsys.readouterr().err
