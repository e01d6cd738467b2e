"""What a plan keeps of a scene comes back as it was; files of an earlier h2crop are not believed to know it."""

from __future__ import annotations

import io
import json

import pandas as pd

from h2crop_data.enmap.product import Angles, Band
from h2crop_data.recipe.enmap import EnmapSettings
from h2crop_data.sources.enmap.scene import SceneFacts, facts_from_parquet, facts_to_parquet

BANDS = (Band(2, 490.5, 6.0, 1e-4, 0.0, "vnir"), Band(1, 1610.25, 11.0, 2e-4, -0.01, "swir"))


def test_facts_come_back_as_they_were() -> None:
    facts = {
        "plain": SceneFacts(BANDS, {}),
        "all": SceneFacts(
            BANDS[:1],
            {"terrainCorrection": "No", "archivedVersion": "01.04.02"},
            -7,
            Angles(56.0, 170.9, -16.9, None),
            ("quality_cloud", "quality_haze"),
            (1331.2,),
            (1939.44, 1948.98),
            ("its item lists 3 bands",),
        ),
    }
    assert facts_from_parquet(facts_to_parquet(facts)) == facts


def test_a_file_of_an_earlier_h2crop_has_its_scenes_looked_at_again() -> None:
    rows = [
        {"scene": "a", "number": 1, "wavelength": 490.0, "fwhm": 6.0, "gain": 1e-4, "offset": 0.0, "processing": "{}"}
    ]
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer)
    assert facts_from_parquet(buffer.getvalue()) == {}


def test_the_default_bands_have_a_name_and_plans_keep_their_text() -> None:
    default = EnmapSettings(catalog="x")
    assert EnmapSettings(catalog="x", bands="h2crop-218") == default  # type: ignore[arg-type]
    assert json.loads(default.bands.model_dump_json()) == {"exclude_nm": [[1325.0, 1395.0]], "count": 218}
