"""Coordinates of a season: every sample's value in the chunk and place of its slot, fill elsewhere."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
from numcodecs import VLenUTF8, Zstd

from h2crop_data.cube.coordinates import coordinate_chunks, encode_coordinate
from h2crop_data.cube.schema import CoordinateSpec
from h2crop_data.cube.season import FinishedSeason
from h2crop_data.sources.formats import known_layout

LAYOUT = known_layout(240, 4, enmap_bands=3, s2_bands=("B02",))
#: Three blocks of four slots; the last of the second block is retracted with its block.
SLOTS = [0, 1, 2, 4, 8, 9, 10, 11]
SEASON = FinishedSeason(
    season=2022,
    samples=gpd.GeoDataFrame(
        {"slot": SLOTS, "block": [slot // 4 for slot in SLOTS], "x0": [100 + slot for slot in SLOTS], "epsg": 32633},
        geometry=[None] * len(SLOTS),
    ).assign(sample=[f"sample {slot}" for slot in SLOTS]),
    blocks=pd.DataFrame({"block": [0, 1, 2], "retracted": ["", "wrong", ""]}),
    scenes=pd.DataFrame(),
    parcels=None,
    by_block={"wavelength": np.array([[1, 2], [3, 4], [5, 6]], np.float32)},
    sums={},
    files=[],
    recipe={},
)


def test_values_lie_at_their_slots_in_chunks_of_any_size() -> None:
    expected = np.full(12, -1)
    expected[SLOTS] = [100 + slot for slot in SLOTS]
    for size in (None, 3, 4, 5, 100):
        spec = CoordinateSpec("x0", ("sample",), "int32", -1, chunk=size)
        shape, chunks = coordinate_chunks(spec, LAYOUT, SEASON)
        found = list(chunks)
        assert shape == (12,)
        assert {len(chunk) for chunk in found} == {size or 12}
        together = np.concatenate(found)
        np.testing.assert_array_equal(together[:12], expected)
        assert (together[12:] == -1).all()
        first = np.frombuffer(Zstd().decode(encode_coordinate(spec, found[0])), "<i4")
        np.testing.assert_array_equal(first, found[0])


def test_text_values_by_block_and_what_is_kept() -> None:
    _, texts = coordinate_chunks(CoordinateSpec("sample", ("sample",), "string", "", chunk=8), LAYOUT, SEASON)
    encoded = [encode_coordinate(CoordinateSpec("sample", ("sample",), "string", ""), chunk) for chunk in texts]
    decoded = np.concatenate([VLenUTF8().decode(Zstd().decode(chunk)) for chunk in encoded])
    assert decoded[:12].tolist() == [f"sample {slot}" if slot in SLOTS else "" for slot in range(12)]
    spec = CoordinateSpec("wavelength", ("sample", "band"), "float32", 0.0, chunk=5, lengths=(2,))
    shape, chunks = coordinate_chunks(spec, LAYOUT, SEASON)
    assert shape == (12, 2)
    of_slots = np.concatenate(list(chunks))
    for slot in range(12):
        block = slot // 4
        assert of_slots[slot].tolist() == ([2 * block + 1, 2 * block + 2] if slot in SLOTS else [0, 0])
    _, kept = coordinate_chunks(CoordinateSpec("valid", ("sample",), "bool", False), LAYOUT, SEASON)
    assert np.flatnonzero(next(kept)[:12]).tolist() == [slot for slot in SLOTS if slot // 4 != 1]
    fixed = CoordinateSpec("month", ("month",), "int8", 0, values=(1, 2, 3))
    assert [chunk.tolist() for chunk in coordinate_chunks(fixed, LAYOUT, SEASON)[1]] == [[1, 2, 3]]
