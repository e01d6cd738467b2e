"""What metadata documents say for other tools: names of classes, coordinates, members of a season."""

from __future__ import annotations

from h2crop_data.cube.meanings import class_attributes, season_attributes, season_document
from h2crop_data.cube.schema import group_document
from h2crop_data.sources.formats import known_layout

LAYOUT = known_layout(960, 4, s2_bands=("B02", "B08"), enmap_bands=3)
CLASSES = [{1: "arable crops", 2: "grass"}, {7: "maize"}, {}, {100: "silage maize", 12: "winter  wheat"}]


def test_every_tier_of_an_array_of_classes_names_its_numbers_in_order() -> None:
    arrays = LAYOUT.arrays()
    for name in ("label", "prior"):
        assert class_attributes(arrays[name], CLASSES) == {
            "classes_tier1": "0=not_declared 1=arable_crops 2=grass 255=unknown",
            "classes_tier2": "0=not_declared 7=maize 255=unknown",
            "classes_tier3": "0=not_declared 255=unknown",
            "classes_tier4": "0=not_declared 12=winter_wheat 100=silage_maize 255=unknown",
        }
    for name in ("s2", "s2_clear", "enmap", "enmap_quality", "parcel"):
        assert class_attributes(arrays[name], CLASSES) == {}


def test_a_season_lists_the_coordinates_that_readers_cannot_know_by_their_dimension() -> None:
    attributes = season_attributes(2022, LAYOUT)
    assert attributes["Conventions"].startswith("CF-1.")
    listed = attributes["coordinates"].split()
    assert {"valid", "x0", "y0", "epsg", "wavelength", "fwhm"} <= set(listed)
    assert not {"sample", "s2_band", "tier", "s2", "enmap", "label"} & set(listed)


def test_the_file_of_a_season_has_its_members_and_the_entry_of_the_root_has_not() -> None:
    group = group_document({"season": 2022})
    document = season_document(group, {"s2": {"node_type": "array"}, "enmap": {"node_type": "array"}})
    assert list(document["consolidated_metadata"]["metadata"]) == ["enmap", "s2"]
    assert {key: value for key, value in document.items() if key != "consolidated_metadata"} == group
