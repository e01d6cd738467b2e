"""The Sentinel-2 products of a pass: which granules there are, their files, their items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import shapely

from h2crop_data.errors import UsageError
from h2crop_data.grid import LONLAT, to_crs, utm_epsg
from h2crop_data.sentinel2.reflectance import OFFSET, OFFSET_SINCE
from h2crop_data.simulate.files import checksum
from h2crop_data.simulate.ground import Bounds, RegionGround
from h2crop_data.simulate.layout import Layout
from h2crop_data.simulate.overpasses import Sentinel2Pass
from h2crop_data.simulate.randomness import generator
from h2crop_data.simulate.sentinel2.datastrip import datastrip_xml
from h2crop_data.simulate.sentinel2.granules import DATASTRIP, Granule
from h2crop_data.simulate.sentinel2.items import asset_key, file_path, sentinel2_item
from h2crop_data.simulate.sentinel2.scenes import (
    IN_PLACE,
    PIXEL,
    SWATH_SLOPE,
    Output,
    SwathEdge,
    TruthFiles,
    stored_bands,
    write_pass,
)
from h2crop_data.simulate.sentinel2.shifts import ImageShift, image_shift, shift_row
from h2crop_data.simulate.sentinel2.tiles import tiles_over

#: The archive of collection 1 holds nothing older.
OLDEST_OF_COLLECTION_1 = "05.00"
#: What granules were processed to again, and when.
NEWEST_BASELINE, REPROCESSED = "05.11", datetime(2024, 11, 4, 7, 30, tzinfo=UTC)
#: View of each of the two relative orbits, degrees: azimuth, incidence.
VIEWS = ((285.6, 5.2), (104.9, 8.1))
#: A region further than this from the next zone has no tiles of it, in degrees.
BORDER_REACH = 0.75


@dataclass(frozen=True)
class Listed:
    """A granule to write, and the catalog that lists it."""

    archive: str
    granule: Granule
    output: Output
    #: None: the region has exact geometry, and its archives say nothing of it.
    shift: ImageShift | None


def products_of_pass(layout: Layout, folder: Path, ground: RegionGround, look: Sentinel2Pass) -> dict[str, Any]:
    """Write all granules of a pass.

    Gives their items by catalog, the truth of each, the shift of each tile, and millions of pixels drawn.
    """
    settings = layout.simulation.sentinel2
    items: dict[str, list[dict[str, Any]]] = {}
    scenes: list[dict[str, Any]] = []
    shifts: dict[str, dict[str, Any]] = {}
    pixels = 0.0
    natural = layout.simulation.natural
    errors = natural.classification if natural else None
    edge = SwathEdge(layout.epsg, (layout.bounds[1] + layout.bounds[3]) / 2)
    for epsg, bounds in zones(layout):
        listed = list(granules(layout, folder, look, epsg, bounds, edge))
        truth = None
        if epsg == layout.epsg:
            truth = TruthFiles(
                folder / "truth" / "sentinel2" / f"{look.moment:%Y-%m-%d}", layout.simulation.truth_reflectance
            )
        outputs = [one.output for one in listed]
        counts = write_pass(ground, look, epsg, bounds, outputs, truth, settings, edge, errors)
        for one, count in zip(listed, counts, strict=True):
            described = written_item(folder, one, count)
            items.setdefault(one.archive, []).append(described)
            scenes.append(granule_truth(one, described["id"], look))
            if one.shift:
                shifts[one.granule.tile.name] = shift_row(one.shift, look, one.granule.tile)
            pixels += sum(
                (one.output.bounds[2] - one.output.bounds[0])
                * (one.output.bounds[3] - one.output.bounds[1])
                / PIXEL.get(band, 20) ** 2
                for band in one.output.files
            )
    return {"items": items, "scenes": scenes, "shifts": list(shifts.values()), "megapixels": pixels / 1e6}


def zones(layout: Layout) -> Iterator[tuple[int, Bounds]]:
    """The zones whose granules show the region, its own first, and what their files cover."""
    yield layout.epsg, layout.sentinel2_bounds
    if not layout.simulation.sentinel2.zone_border:
        return
    longitude, latitude = layout.centre
    other = {utm_epsg(longitude + step, latitude) for step in (-BORDER_REACH, BORDER_REACH)} - {layout.epsg}
    if not other:
        raise UsageError(
            f"sentinel2.zone_border: the region at {longitude:.2f} E is more than {BORDER_REACH} degrees from the "
            "next UTM zone; move `place` (in EPSG:32631 at 49 N the border at 6 E is near x = 719000)"
        )
    neighbour = other.pop()
    ground = shapely.box(*layout.sentinel2_bounds)
    west, south, east, north = to_crs(ground, f"EPSG:{layout.epsg}", f"EPSG:{neighbour}").bounds
    yield neighbour, (int(west // 60) * 60, int(south // 60) * 60, -int(-east // 60) * 60, -int(-north // 60) * 60)


def granules(
    layout: Layout, folder: Path, look: Sentinel2Pass, epsg: int, bounds: Bounds, edge: SwathEdge
) -> Iterator[Listed]:
    """The granules of a pass in a zone: each tile, in each archive, perhaps twice."""
    simulation = layout.simulation
    geometry = simulation.sentinel2.geometry
    archives = [*simulation.sentinel2.archives, *(["sentinel-2-l1c"] if simulation.sentinel2.l1c else [])]
    for archive in archives:
        for tile in tiles_over(epsg, bounds):
            shown = (
                max(bounds[0], tile.bounds[0]),
                max(bounds[1], tile.bounds[1]),
                min(bounds[2], tile.bounds[2]),
                min(bounds[3], tile.bounds[3]),
            )
            footprint = swath_part(look, epsg, shown, edge)
            if footprint.is_empty:
                continue
            shift = image_shift(layout, geometry, look, tile) if geometry else None
            chance = generator(simulation.seed, "granule", archive, look.name, tile.name)
            baseline = look.baseline
            if archive == "sentinel-2-c1-l2a" and simulation.sentinel2.baselines == "by_date":
                baseline = max(baseline, OLDEST_OF_COLLECTION_1)
            first = Granule(
                platform=look.platform,
                tile=tile,
                footprint=to_crs(footprint, f"EPSG:{epsg}", LONLAT),
                bounds=shown,
                sensing=look.moment,
                datatake=(look.moment - timedelta(minutes=2)).replace(microsecond=0),
                generation=(look.moment + timedelta(hours=4)).replace(microsecond=0),
                relative_orbit=look.relative_orbit,
                absolute_orbit=look.absolute_orbit,
                baseline=baseline,
                classes={},
                nodata=0.0,
                sun_azimuth=look.sun.azimuth,
                sun_elevation=look.sun.elevation,
                view_azimuth=VIEWS[look.relative_orbit > 8][0],
                view_incidence=VIEWS[look.relative_orbit > 8][1],
            )
            again = replace(first, baseline=NEWEST_BASELINE, generation=REPROCESSED, sequence=1)
            twice = chance.random() < simulation.sentinel2.duplicates and first.baseline < NEWEST_BASELINE
            for granule in (first, again) if twice else (first,):
                removed = archive == "sentinel-2-l2a" and carries_offset(granule.baseline)
                removed &= chance.random() < simulation.sentinel2.removed_offset
                wrong = chance.random() < simulation.sentinel2.wrong_flags
                flag = (removed != wrong) if archive == "sentinel-2-l2a" else None
                yield Listed(
                    archive,
                    replace(granule, offset_flag=flag),
                    output_of(folder, archive, granule, bool(removed), shift),
                    shift,
                )


def swath_part(look: Sentinel2Pass, epsg: int, bounds: Bounds, edge: SwathEdge) -> shapely.Polygon:
    """The part of some bounds of a zone that lies in the swath."""
    box = shapely.box(*bounds)
    if look.swath_end is None:
        return box
    around = to_crs(box, f"EPSG:{epsg}", f"EPSG:{edge.epsg}").buffer(1000)
    west, south, _, north = around.bounds
    low, high = (look.swath_end + SWATH_SLOPE * (y - edge.middle) for y in (south, north))
    far = min(west, low, high) - 1000
    swath = shapely.Polygon([(far, south), (low, south), (high, north), (far, north)])
    return shapely.intersection(box, to_crs(swath, f"EPSG:{edge.epsg}", f"EPSG:{epsg}"))


def carries_offset(baseline: str) -> bool:
    """Whether products of a baseline carry the offset."""
    major, minor = baseline.split(".")
    return (int(major), int(minor)) >= OFFSET_SINCE


def output_of(folder: Path, archive: str, granule: Granule, removed: bool, shift: ImageShift | None) -> Output:
    """Where a granule's files go and how its numbers are stored."""
    level = "L1C" if archive.endswith("l1c") else "L2A"
    return Output(
        folder=folder / "products" / archive,
        bounds=granule.bounds,
        level=level,
        offset=-OFFSET if carries_offset(granule.baseline) else 0,
        files={band: file_path(granule, archive, band) for band in stored_bands(level)},
        removed=removed,
        shift=(shift.east, shift.north) if shift else IN_PLACE,
    )


def written_item(folder: Path, listed: Listed, count: dict[int, int]) -> dict[str, Any]:
    """The STAC item of a granule that was written; count: pixels of each SCL class, empty for L1C."""
    seen = sum(number for value, number in count.items() if value)
    total = sum(count.values())
    granule = replace(
        listed.granule,
        classes={value: 100 * number / seen for value, number in count.items() if value},
        nodata=100 * count.get(0, 0) / total if total else 0.0,
    )
    paths = {asset_key(listed.archive, band): listed.output.folder / name for band, name in listed.output.files.items()}
    if listed.shift:
        path = listed.output.folder / file_path(granule, listed.archive, DATASTRIP, ".xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(datastrip_xml(granule, listed.output.level, listed.shift.refined), encoding="utf-8")
        paths[asset_key(listed.archive, DATASTRIP)] = path
    return sentinel2_item(
        granule,
        listed.archive,
        hrefs={key: f"../{path.relative_to(folder).as_posix()}" for key, path in paths.items()},
        sizes={key: path.stat().st_size for key, path in paths.items()},
        checksums={key: checksum(path) for key, path in paths.items()},
    )


def granule_truth(listed: Listed, name: str, look: Sentinel2Pass) -> dict[str, Any]:
    """What is true of a granule, whatever its item says."""
    return {
        "scene": name,
        "archive": listed.archive,
        "sensor": "sentinel2",
        "time": look.moment.isoformat(),
        "truth": f"sentinel2/{look.moment:%Y-%m-%d}",
        "offset_in_numbers": 0 if listed.output.removed else listed.output.offset,
        "swath_end": look.swath_end,
        "shift_east": listed.output.shift[0],
        "shift_north": listed.output.shift[1],
    }
