"""What each archive says of a Sentinel-2 granule and of its bands: properties and asset fields, as recorded."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from h2crop_data import __version__
from h2crop_data.simulate.sentinel2.granules import (
    CLASS_NAMES,
    DATASTRIP,
    DESIGNATORS,
    Granule,
    datatake_id,
    granule_id,
    image_path,
    reflectance_conversion,
    sentinel2_product_name,
    strip_id,
    strip_metadata_path,
)
from h2crop_data.simulate.stac_fields import Fields, iso, stamp

#: Archives list a product this long after it was made.
LISTED_AFTER = timedelta(minutes=21, milliseconds=817)
#: Pixel size in metres of each band and of the scene classification.
SIZES = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20}
SIZES |= {"B09": 60, "B10": 60, "B11": 20, "B12": 20, "SCL": 20}
#: Asset key, title, common name, centre and width in micrometres.
EARTH_SEARCH_BANDS: dict[str, tuple[str, str, str, float, float]] = {
    "B01": ("coastal", "Coastal", "coastal", 0.443, 0.027),
    "B02": ("blue", "Blue", "blue", 0.49, 0.098),
    "B03": ("green", "Green", "green", 0.56, 0.045),
    "B04": ("red", "Red", "red", 0.665, 0.038),
    "B05": ("rededge1", "Red Edge 1", "rededge", 0.704, 0.019),
    "B06": ("rededge2", "Red Edge 2", "rededge", 0.74, 0.018),
    "B07": ("rededge3", "Red Edge 3", "rededge", 0.783, 0.028),
    "B08": ("nir", "NIR 1", "nir", 0.842, 0.145),
    "B8A": ("nir08", "NIR 2", "nir08", 0.865, 0.033),
    "B09": ("nir09", "NIR 3", "nir09", 0.945, 0.026),
    "B10": ("cirrus", "Cirrus", "cirrus", 1.3735, 0.075),
    "B11": ("swir16", "SWIR 1.6μm", "swir16", 1.61, 0.143),
    "B12": ("swir22", "SWIR 2.2μm", "swir22", 2.19, 0.242),
}
#: Description and common name; centre and width are Earth Search's.
PLANETARY_BANDS: dict[str, tuple[str, str | None]] = {
    "B01": ("Band 1 - Coastal aerosol", "coastal"),
    "B02": ("Band 2 - Blue", "blue"),
    "B03": ("Band 3 - Green", "green"),
    "B04": ("Band 4 - Red", "red"),
    "B05": ("Band 5 - Vegetation red edge 1", "rededge"),
    "B06": ("Band 6 - Vegetation red edge 2", "rededge"),
    "B07": ("Band 7 - Vegetation red edge 3", "rededge"),
    "B08": ("Band 8 - NIR", "nir"),
    "B8A": ("Band 8A - Vegetation red edge 4", "rededge"),
    "B09": ("Band 9 - Water vapor", None),
    "B11": ("Band 11 - SWIR (1.6)", "swir16"),
    "B12": ("Band 12 - SWIR (2.2)", "swir22"),
}
#: Title, common name, centre and width (as the archive writes it).
COPERNICUS_BANDS: dict[str, tuple[str, str, float, float]] = {
    "B01": ("Coastal aerosol (band 1)", "coastal", 0.442, 0.228),
    "B02": ("Blue (band 2)", "blue", 0.492, 0.267),
    "B03": ("Green (band 3)", "green", 0.559, 0.291),
    "B04": ("Red (band 4)", "red", 0.665, 0.342),
    "B05": ("Red edge 1 (band 5)", "rededge071", 0.704, 0.357),
    "B06": ("Red edge 2 (band 6)", "rededge075", 0.739, 0.374),
    "B07": ("Red edge 3 (band 7)", "rededge078", 0.78, 0.399),
    "B08": ("NIR 1 (band 8)", "nir", 0.833, 0.454),
    "B8A": ("NIR 2 (band 8A)", "nir08", 0.864, 0.441),
    "B09": ("NIR 3 (band 9)", "nir09", 0.943, 0.479),
    "B11": ("SWIR 1 (band 11)", "swir16", 1.61, 0.841),
    "B12": ("SWIR 2 (band 12)", "swir22", 2.186, 1.16),
}
#: Copernicus' words for classes of the scene classification: in `statistics`, and in `classification:classes`.
COPERNICUS_CLASSES = {
    1: ("saturated_defective", "saturated_or_defective"),
    2: ("dark_area", "dark_area_pixels"),
    3: ("cloud_shadow", "cloud_shadows"),
    7: ("unclassified", "unclassified"),
    8: ("medium_proba_clouds", "cloud_medium_probability"),
    9: ("high_proba_clouds", "cloud_high_probability"),
}


def earth_search_id(granule: Granule, level: str) -> str:
    """`S2B_20EPT_20250731_0_L2A`."""
    return f"{granule.platform}_{granule.tile.name}_{granule.sensing:%Y%m%d}_{granule.sequence}_{level}"


def collection1_id(granule: Granule) -> str:
    """`S2B_T20EPT_20250731T131905_L2A`: named by the datastrip."""
    return f"{granule.platform}_T{granule.tile.name}_{stamp(granule.strip_start)}_L2A"


def tile_folder(granule: Granule) -> str:
    """`20/E/PT/2025/7`."""
    tile = granule.tile
    return f"{tile.zone}/{tile.band}/{tile.square}/{granule.sensing.year}/{granule.sensing.month}"


def earth_search_properties(granule: Granule, level: str) -> Fields:
    """What all of Earth Search's collections say."""
    centroid = granule.footprint.centroid
    listed = iso(granule.generation + LISTED_AFTER, "milliseconds")
    tile = granule.tile
    return {
        "created": listed,
        "platform": f"sentinel-{granule.platform[1:].lower()}",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": granule.cloud_cover,
        "proj:epsg": granule.epsg,
        "proj:centroid": {"lat": round(centroid.y, 5), "lon": round(centroid.x, 5)},
        "mgrs:utm_zone": tile.zone,
        "mgrs:latitude_band": tile.band,
        "mgrs:grid_square": tile.square,
        "grid:code": f"MGRS-{tile.name}",
        "view:azimuth": granule.view_azimuth,
        "view:incidence_angle": granule.view_incidence,
        "view:sun_azimuth": granule.sun_azimuth,
        "view:sun_elevation": granule.sun_elevation,
        "s2:tile_id": granule_id(granule, level),
        "s2:degraded_msi_data_percentage": 0,
        "s2:product_type": f"S2MSI{level[1:]}",
        "s2:processing_baseline": granule.baseline,
        "s2:product_uri": f"{sentinel2_product_name(granule, level)}.SAFE",
        "s2:generation_time": iso(granule.generation),
        "s2:datatake_id": datatake_id(granule),
        "s2:datatake_type": "INS-NOBS",
        "s2:datastrip_id": strip_id(granule, level),
        "s2:reflectance_conversion_factor": reflectance_conversion(granule.sensing),
        "datetime": iso(granule.sensing),
        "earthsearch:payload_id": f"simulated/{hashlib.sha256(granule_id(granule, level).encode()).hexdigest()[:32]}",
        "processing:software": {"h2crop-simulate": __version__},
        "updated": listed,
    }


def class_percentages(granule: Granule, left_out: tuple[int, ...] = ()) -> Fields:
    """`s2:<class>_percentage` of the scene classification."""
    shares = {f"s2:{name}_percentage": granule.percent(n) for n, name in CLASS_NAMES.items() if n not in left_out}
    return {"s2:nodata_pixel_percentage": round(float(granule.nodata), 6), **shares}


def collection1_properties(granule: Granule) -> Fields:
    """Properties in `sentinel-2-c1-l2a`; dark areas are not listed there."""
    storage = {"storage:platform": "AWS", "storage:region": "us-west-2", "storage:requester_pays": False}
    return {**earth_search_properties(granule, "L2A"), **class_percentages(granule, (2,)), **storage}


def older_properties(granule: Granule, level: str) -> Fields:
    """Properties in `sentinel-2-l2a` and `sentinel-2-l1c`."""
    path = f"s3://simulated/sentinel-2-{level.lower()}/{tile_folder(granule)}/{earth_search_id(granule, level)}"
    named = {"s2:sequence": str(granule.sequence), "earthsearch:s3_path": path}
    if level == "L1C":
        return {**earth_search_properties(granule, level), **named}
    flag = {} if granule.offset_flag is None else {"earthsearch:boa_offset_applied": granule.offset_flag}
    return {**earth_search_properties(granule, level), **class_percentages(granule, (2,)), **named, **flag}


def earth_search_asset(granule: Granule, band: str) -> Fields:
    """The asset of a band in all of Earth Search's collections, or of the datastrip's metadata."""
    if band == DATASTRIP:
        return {"roles": ["metadata"]}
    size = SIZES[band]
    rows_columns, transform = granule.grid(size)
    place = {"gsd": size, "proj:shape": rows_columns, "proj:transform": transform}
    pixels = {"nodata": 0, "data_type": "uint8" if band == "SCL" else "uint16", "spatial_resolution": size}
    if band == "SCL":
        return {"title": "Scene classification map (SCL)", **place, "raster:bands": [pixels], "roles": ["data"]}
    _, title, common, centre, width = EARTH_SEARCH_BANDS[band]
    facts = {"name": band, "common_name": common, "center_wavelength": centre, "full_width_half_max": width}
    return {
        "title": f"{title} - {size}m",
        "eo:bands": [facts],
        **place,
        "raster:bands": [{**pixels, "scale": 0.0001, "offset": granule.offset}],
        "roles": ["data", "reflectance"],
    }


def planetary_properties(granule: Granule) -> Fields:
    """Properties in Planetary Computer; the time is the datatake's."""
    return {
        "datetime": iso(granule.datatake),
        "platform": f"Sentinel-{granule.platform[1:]}",
        "proj:epsg": granule.epsg,
        "instruments": ["msi"],
        "s2:mgrs_tile": granule.tile.name,
        "constellation": "Sentinel 2",
        "s2:granule_id": granule_id(granule, "L2A"),
        "eo:cloud_cover": granule.cloud_cover,
        "s2:datatake_id": datatake_id(granule),
        "s2:product_uri": f"{sentinel2_product_name(granule, 'L2A')}.SAFE",
        "s2:datastrip_id": strip_id(granule, "L2A"),
        "s2:product_type": "S2MSI2A",
        "sat:orbit_state": "descending",
        "s2:datatake_type": "INS-NOBS",
        "s2:generation_time": iso(granule.generation, "milliseconds"),
        "sat:relative_orbit": granule.relative_orbit,
        "s2:mean_solar_zenith": 90 - granule.sun_elevation,
        "s2:mean_solar_azimuth": granule.sun_azimuth,
        "s2:processing_baseline": granule.baseline,
        **class_percentages(granule),
        "s2:degraded_msi_data_percentage": 0.0,
        "s2:reflectance_conversion_factor": reflectance_conversion(granule.sensing),
    }


def planetary_asset(granule: Granule, band: str) -> Fields:
    """The asset of a band in Planetary Computer, which states no offset, or of the datastrip's metadata."""
    if band == DATASTRIP:
        return {"roles": ["metadata"], "title": "Datastrip metadata"}
    size = SIZES[band]
    rows_columns, transform = granule.grid(size)
    fields = {
        "proj:bbox": [float(edge) for edge in granule.bounds],
        "proj:shape": rows_columns,
        "proj:transform": [float(value) for value in transform],
        "gsd": float(size),
        "roles": ["data"],
    }
    if band == "SCL":
        return {**fields, "title": "Scene classfication map (SCL)"}  # as the archive spells it  # codespell:ignore
    description, common = PLANETARY_BANDS[band]
    *_, centre, width = EARTH_SEARCH_BANDS[band]
    facts = {"description": description, "center_wavelength": centre, "full_width_half_max": width}
    named = {"name": band} if common is None else {"name": band, "common_name": common}
    return {**fields, "title": f"{description} - {size}m", "eo:bands": [{**named, **facts}]}


def planetary_path(granule: Granule, band: str, suffix: str) -> str:
    """`31/U/DS/2022/07/05/<product>.SAFE/GRANULE/...`."""
    tile = granule.tile
    folder = f"{tile.zone:02d}/{tile.band}/{tile.square}/{granule.datatake:%Y/%m/%d}"
    return f"{folder}/{path_in_product(granule, band, suffix)}"


def path_in_product(granule: Granule, band: str, suffix: str) -> str:
    """Where the file of a band, or the metadata of the datastrip, lies in an L2A product."""
    if band == DATASTRIP:
        return strip_metadata_path(granule)
    return image_path(granule, band, SIZES[band], suffix)


def copernicus_key(band: str) -> str:
    """`B02_10m`."""
    return f"{band}_{SIZES[band]}m"


def copernicus_properties(granule: Granule) -> Fields:
    """Properties in Copernicus Data Space; the time is the datatake's, and shares of classes are all in one field."""
    listed = iso(granule.generation + LISTED_AFTER)
    taken = iso(granule.datatake, "milliseconds")
    shares = {COPERNICUS_CLASSES.get(n, (name,))[0]: granule.percent(n) for n, name in CLASS_NAMES.items() if n != 11}
    return {
        "gsd": 10,
        "created": listed,
        "updated": listed,
        "datetime": taken,
        "platform": f"sentinel-{granule.platform[1:].lower()}",
        "grid:code": f"MGRS-{granule.tile.name}",
        "published": listed,
        "statistics": {**shares, "nodata": round(float(granule.nodata), 6)},
        "instruments": ["msi"],
        "end_datetime": taken,
        "product:type": "S2MSI2A",
        "view:azimuth": granule.view_azimuth,
        "constellation": "sentinel-2",
        "eo:snow_cover": round(granule.percent(11), 2),
        "eo:cloud_cover": round(granule.cloud_cover, 2),
        "start_datetime": taken,
        "sat:orbit_state": "descending",
        "eopf:datatake_id": datatake_id(granule),
        "processing:level": "L2",
        "view:sun_azimuth": granule.sun_azimuth,
        "eopf:datastrip_id": strip_id(granule, "L2A"),
        "processing:version": granule.baseline,
        "product:timeliness": "PT24H",
        "sat:absolute_orbit": granule.absolute_orbit,
        "sat:relative_orbit": granule.relative_orbit,
        "view:sun_elevation": granule.sun_elevation,
        "processing:datetime": iso(granule.generation),
        "processing:facility": "simulated",
        "eopf:instrument_mode": "INS-NOBS",
        "eopf:origin_datetime": listed,
        "view:incidence_angle": granule.view_incidence,
        "product:timeliness_category": "NRT",
        "sat:platform_international_designator": DESIGNATORS[granule.platform],
    }


def copernicus_asset(granule: Granule, band: str) -> Fields:
    """The asset of a band in Copernicus Data Space, in STAC 1.1, or of the datastrip's metadata."""
    if band == DATASTRIP:
        return {"file:local_path": strip_metadata_path(granule), "roles": ["metadata"], "title": "MTD_DS.xml"}
    size = SIZES[band]
    rows_columns, transform = granule.grid(size)
    fields: Fields = {
        "proj:bbox": [float(edge) for edge in granule.bounds],
        "proj:code": f"EPSG:{granule.epsg}",
        "proj:shape": rows_columns,
        "proj:transform": [float(value) for value in transform],
        "file:local_path": image_path(granule, band, size, ".jp2"),
        "gsd": size,
        "nodata": 0,
    }
    if band == "SCL":
        fields |= {
            "title": f"Scene classfication map (SCL) - {size}m",  # codespell:ignore
            "data_type": "uint8",
        }  # as the archive spells it
        fields["roles"] = ["data", "sampling:original", f"gsd:{size}m"]
        return {**fields, "classification:classes": copernicus_classes(granule)}
    title, common, centre, width = COPERNICUS_BANDS[band]
    facts = {"eo:center_wavelength": centre, "eo:full_width_half_max": width, "eo:common_name": common}
    return {
        **fields,
        "title": f"{title} - {size}m",
        "bands": [{"name": band, **facts}],
        "view:azimuth": granule.view_azimuth,
        "view:incidence_angle": granule.view_incidence,
        "roles": ["data", "reflectance", "sampling:original", f"gsd:{size}m"],
        "data_type": "uint16",
        "raster:scale": 0.0001,
        "raster:offset": granule.offset,
    }


def copernicus_classes(granule: Granule) -> list[Fields]:
    """Value, name and percent of each class of the scene classification; nodata first."""
    words = {n: COPERNICUS_CLASSES.get(n, ("", name))[1] for n, name in CLASS_NAMES.items()} | {11: "snow"}
    classes = [{"name": word, "value": n, "percentage": granule.percent(n)} for n, word in words.items()]
    return [{"name": "no_data", "value": 0, "percentage": round(float(granule.nodata), 6), "nodata": True}, *classes]


def copernicus_path(granule: Granule, band: str, suffix: str) -> str:
    """`L2A_N0510/2022/07/05/<product>.SAFE/GRANULE/...`."""
    folder = f"L2A_N{granule.baseline.replace('.', '')}/{granule.datatake:%Y/%m/%d}"
    return f"{folder}/{path_in_product(granule, band, suffix)}"
